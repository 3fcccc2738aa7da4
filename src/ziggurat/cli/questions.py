"""What people see of models that answer questions."""

from __future__ import annotations

from typing import Any


def question_evaluation_text(result: dict[str, Any]) -> str:
    """What `eval` shows."""
    exits = ", ".join(f"{name}: {n}" for name, n in result["exit_histogram"].items())
    lines = [
        f"{result['model']} at {result['operating_point']} on {result['n']:,} questions of {result['data']}, in "
        f"{result['windows']:,} windows",
        f"  exact match {100 * result['exact_match']:.2f} [{100 * result['exact_match_low']:.2f}, "
        f"{100 * result['exact_match_high']:.2f}]   full depth {100 * result['full_exact_match']:.2f}",
        f"  F1          {100 * result['f1']:.2f}   full depth {100 * result['full_f1']:.2f}, same answer on "
        f"{result['agreement']:.2%}",
        f"  FLOPs       {result['flops_ratio']:.2f}x fewer, {result['mean_layers']:.2f} layers on average",
        f"  questions/s {result['questions_per_second']:.1f}   full depth {result['full_questions_per_second']:.1f}   "
        f"{result['time_ratio']:.2f}x [{result['time_ratio_low']:.2f}, {result['time_ratio_high']:.2f}]   "
        f"(batch {result['batch_size']}, {result['device']}, {result['threads']} threads, {result['dtype']})",
        f"  exits       {exits}",
    ]
    if "f1_unanswerable" in result:
        known = result["f1_answerable"]
        parts = f"{'–' if known is None else f'{100 * known:.2f}'}, without one {100 * result['f1_unanswerable']:.2f}"
        lines.insert(3, f"  F1 of questions with an answer {parts}")
    if promise := result["promise"]:
        terms = f"at most {100 * promise['target']:g} points of {promise['criterion']} lost, with "
        terms += f"{100 * promise['confidence']:g} % confidence by {promise['rows']:,} questions"
        lines.append(f"  promise     {terms}" if promise["broken"] is None else f"  warning: {promise['broken']}")
    if min(result["tokens_left"]) < 1:
        shares = ", ".join(f"{share:.0%}" for share in result["tokens_left"])
        lines.append(f"  tokens      {shares} are read, left after layer 1, 2, … (of the windows that come so far)")
    if result["truncated"]:
        lines.append(f"  {result['truncated']} questions were longer than the model reads and were cut")
    if result["seen_in_training"]:
        lines.append(f"  warning: {result['seen_in_training']} are about contexts that trained the model; F1 flatters")
    return "\n".join(lines)


def answer_text(answer: dict[str, Any]) -> str:
    """One answer of `predict`."""
    said = answer["answer"] or "(no answer)"
    place = f"characters {answer['start']}-{answer['end']}" if answer["answer"] else "none"
    return f"{said}\t{place}\t{answer['layers']} layers, {answer['tokens']} tokens\t{answer['question']}"


def reading_lines(result: dict[str, Any], labels: str) -> list[str]:
    """What `info` says of a model's inputs and answers; `labels` are those of a model that has some."""
    if (spans := result["spans"]) is None:
        kind = "pairs of texts" if result["pairs"] else "texts"
        return [f"  reads      {kind} of up to {result['max_length']} tokens", f"  labels     {labels}"]
    never = "every question has an answer" if result["no_answer"] is None else "or says that there is none"
    return [
        f"  reads      questions of up to {spans['question']} tokens, contexts in windows of {result['max_length']} "
        f"that share {spans['stride']}",
        f"  answers    spans of up to {spans['answer'] + 1} tokens, {never}",
    ]
