// The namespace `kernels`: single kernels on numpy arrays, for tests and measurements only.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <time.h>

#include <algorithm>
#include <atomic>
#include <optional>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>

#include "engine/team.h"
#include "kernels/sets.h"
#include "python/bindings.h"

namespace ziggurat {
namespace {

using Vector = Aligned<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Matrix = Aligned<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Index = Aligned<const int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using NewMatrix = nb::typed<nb::object, Out<float>>;
using Output = Aligned<float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

std::vector<const Kernels*> all_sets() {
    std::vector<const Kernels*> sets = kernels();
#if defined(ZIGGURAT_EMULATED)
    sets.push_back(&emulated_kernels);
#endif
    return sets;
}

const Kernels& set_named(const std::string& name) {
    for (const Kernels* set : all_sets())
        if (set->name == name) return *set;
    throw std::invalid_argument("no instruction set " + name + " here");
}

void require(bool fits, const char* what) {
    if (!fits) throw std::invalid_argument(what);
}

// A number of rows or columns. With this limit the kernels' products of sizes fit 32 bits where they have to.
int checked_size(size_t size) {
    require(size <= 1U << 30, "an array of more than 2^30 rows or columns");
    return static_cast<int>(size);
}

Rows rows_of(const Matrix& matrix, const std::optional<Index>& index) {
    const int n = checked_size(index ? index->shape(0) : matrix.shape(0));
    if (index)
        for (int i = 0; i < n; ++i)
            require(index->data()[i] >= 0 && index->data()[i] < static_cast<int64_t>(matrix.shape(0)), "index: no row");
    return {matrix.data(), static_cast<ptrdiff_t>(matrix.shape(1)), index ? index->data() : nullptr, n};
}

NewMatrix new_matrix(size_t rows, size_t columns) {
    auto* data = new float[rows * columns]();
    nb::capsule owner(data, [](void* p) noexcept { delete[] static_cast<float*>(p); });
    return nb::cast(nb::ndarray<nb::numpy, float, nb::ndim<2>>(data, {rows, columns}, owner));
}

Dtype dtype_named(const std::string& name) {
    if (name == "f32") return Dtype::f32;
    if (name == "bf16") return Dtype::bf16;
    require(name == "i8", "dtype: f32, bf16 or i8");
    return Dtype::i8;
}

Finish finish_named(const std::string& name) {
    if (name == "none") return Finish::none;
    if (name == "gelu") return Finish::gelu;
    if (name == "gelu_tanh") return Finish::gelu_tanh;
    if (name == "relu") return Finish::relu;
    require(name == "tanh", "finish: none, gelu, gelu_tanh, tanh or relu");
    return Finish::tanh;
}

// Processor time of this thread in seconds, so that other work on the machine does not count.
double thread_seconds() {
    timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// A linear map, packed for one instruction set.
class PackedLinear {
  public:
    PackedLinear(const std::string& set, Matrix weight, std::optional<Vector> bias, const std::string& dtype)
        : set_(set_named(set)) {
        require(weight.shape(1) > 0, "weight: no inputs");
        require(!bias || bias->shape(0) == weight.shape(0), "bias: one for each output");
        packed_ = set_.pack(weight.data(), bias ? bias->data() : nullptr, checked_size(weight.shape(0)),
                            checked_size(weight.shape(1)), dtype_named(dtype));
    }

    int panel() const { return packed_.panel; }

    // Writes columns start … stop of y.
    void into(Output y, Matrix x, const std::string& finish, int start, int stop, std::optional<Index> index) const {
        const Rows rows = rows_of(x, index);
        require(checked_size(x.shape(1)) == packed_.in, "x: one column for each input");
        require(checked_size(y.shape(0)) == rows.n, "y: one row for each of x");
        require(start >= 0 && start <= stop && stop <= packed_.out, "range: within the outputs");
        require(checked_size(y.shape(1)) >= stop, "y: too narrow");
        require(start % packed_.panel == 0 && (stop % packed_.panel == 0 || stop == packed_.out),
                "range: whole panels");
        Buffer operand(set_.operand_size(packed_, rows.n));
        set_.prepare(packed_, rows, operand.as<void>());
        set_.multiply(packed_, operand.as<void>(), rows.n, start, stop, finish_named(finish), y.data(),
                      static_cast<ptrdiff_t>(y.shape(1)));
    }

    NewMatrix answer(Matrix x, const std::string& finish, std::optional<Index> index) const {
        NewMatrix y = new_matrix(index ? index->shape(0) : x.shape(0), packed_.out);
        into(nb::cast<Output>(y), x, finish, 0, packed_.out, index);
        return y;
    }

    // Seconds of `repeats` multiplications (and preparations) of x.
    std::pair<double, double> seconds(Matrix x, const std::string& finish, int repeats) const {
        const Rows rows = rows_of(x, std::nullopt);
        require(checked_size(x.shape(1)) == packed_.in, "x: one column for each input");
        const Finish how = finish_named(finish);
        Buffer operand(set_.operand_size(packed_, rows.n));
        Buffer y(sizeof(float) * rows.n * packed_.out);
        const double start = thread_seconds();
        for (int i = 0; i < repeats; ++i) set_.prepare(packed_, rows, operand.as<void>());
        const double middle = thread_seconds();
        for (int i = 0; i < repeats; ++i)
            set_.multiply(packed_, operand.as<void>(), rows.n, 0, packed_.out, how, y.as<float>(), packed_.out);
        return {thread_seconds() - middle, middle - start};
    }

  private:
    const Kernels& set_;
    Packed packed_;
};

// The width of a head if `heads` of them lie side by side in `columns` / `parts`.
int head_width(size_t columns, int heads, int64_t parts, const char* what) {
    require(heads > 0 && columns > 0 && checked_size(columns) % (parts * heads) == 0, what);
    return static_cast<int>(checked_size(columns) / (parts * heads));
}

// qkv (n, 3 heads width) → context (n, heads width), received (heads, n).
std::tuple<NewMatrix, NewMatrix> attend(const std::string& name, Matrix qkv, int heads, bool from_others) {
    const Kernels& set = set_named(name);
    const int n = checked_size(qkv.shape(0)),
              width = head_width(qkv.shape(1), heads, 3, "qkv: three times heads times width");
    const Attention sequence{qkv.data(), static_cast<ptrdiff_t>(qkv.shape(1)), n, heads, width, nullptr};
    NewMatrix context = new_matrix(n, heads * width), received = new_matrix(heads, n);
    auto contexts = nb::cast<Output>(context), received_data = nb::cast<Output>(received);
    Buffer scratch(set.attend_scratch(n, width));
    for (int head = 0; n && head < heads; ++head)
        set.attend(sequence, head, contexts.data(), heads * width,
                   received_data.data() + static_cast<ptrdiff_t>(head) * n, from_others, scratch.as<void>());
    return {context, received};
}

// Seconds of `repeats` attentions over all heads.
double attend_seconds(const std::string& name, Matrix qkv, int heads, bool scored, int repeats) {
    const Kernels& set = set_named(name);
    const int n = checked_size(qkv.shape(0)),
              width = head_width(qkv.shape(1), heads, 3, "qkv: three times heads times width");
    const Attention sequence{qkv.data(), static_cast<ptrdiff_t>(qkv.shape(1)), n, heads, width, nullptr};
    Buffer context(sizeof(float) * n * heads * width), received(sizeof(float) * n);
    Buffer scratch(set.attend_scratch(n, width));
    const double start = thread_seconds();
    for (int i = 0; i < repeats; ++i)
        for (int head = 0; head < heads; ++head)
            set.attend(sequence, head, context.as<float>(), heads * width, scored ? received.as<float>() : nullptr,
                       false, scratch.as<void>());
    return thread_seconds() - start;
}

// query (1, heads width), key_value (n, 2 heads width) → context (1, heads width).
NewMatrix attend_first(const std::string& name, Matrix query, Matrix key_value, int heads) {
    const Kernels& set = set_named(name);
    const int width = head_width(query.shape(1), heads, 1, "query: heads times width");
    require(query.shape(0) == 1, "query: one row");
    require(key_value.shape(1) == 2 * query.shape(1) && key_value.shape(0) > 0, "key_value: keys and values");
    const int n = checked_size(key_value.shape(0));
    NewMatrix context = new_matrix(1, query.shape(1));
    Buffer scratch(set.attend_scratch(n, width));
    set.attend_first(query.data(), key_value.data(), static_cast<ptrdiff_t>(key_value.shape(1)), n, heads, width,
                     nb::cast<Output>(context).data(), scratch.as<void>());
    return context;
}

// norm(y + residual) in a new matrix.
NewMatrix add_norm(const std::string& name, Matrix y, std::optional<Matrix> residual, Vector gain, Vector shift,
                   float epsilon, std::optional<Index> index) {
    const Kernels& set = set_named(name);
    const size_t rows = checked_size(y.shape(0)), d = checked_size(y.shape(1));
    require(d > 0 && gain.shape(0) == d && shift.shape(0) == d, "gain, shift: one for each column");
    Rows other{nullptr, 0, nullptr, 0};
    if (residual) {
        require(residual->shape(1) == d, "residual: as wide as y");
        other = rows_of(*residual, index);
        require(static_cast<size_t>(other.n) == rows, "residual: one row for each of y");
    }
    NewMatrix answer = new_matrix(rows, d);
    float* data = nb::cast<Output>(answer).data();
    std::copy(y.data(), y.data() + rows * d, data);
    set.add_norm(data, static_cast<ptrdiff_t>(d), other, static_cast<int>(rows), static_cast<int>(d),
                 {gain.data(), shift.data(), epsilon});
    return answer;
}

// norm(word[ids] + position[positions] + segment[segments]).
NewMatrix embed(const std::string& name, std::vector<Matrix> tables, std::vector<Index> ids, Vector gain, Vector shift,
                float epsilon) {
    const Kernels& set = set_named(name);
    require(tables.size() == 3 && ids.size() == 3, "word, position, segment");
    const size_t rows = checked_size(ids[0].shape(0)), d = checked_size(tables[0].shape(1));
    require(d > 0 && gain.shape(0) == d && shift.shape(0) == d, "gain, shift: one for each column");
    Rows parts[3];
    for (int i = 0; i < 3; ++i) {
        require(tables[i].shape(1) == d && ids[i].shape(0) == rows, "tables, ids: of one size");
        parts[i] = rows_of(tables[i], ids[i]);
    }
    NewMatrix answer = new_matrix(rows, d);
    set.embed(parts[0], parts[1], parts[2], static_cast<int>(d), {gain.data(), shift.data(), epsilon},
              nb::cast<Output>(answer).data(), static_cast<ptrdiff_t>(d));
    return answer;
}

// Operations and seconds of this number of rounds.
std::pair<double, double> peak(const std::string& name, const std::string& dtype, int rounds) {
    const Dtype kind = dtype_named(dtype);
    const Kernels& set = set_named(name);
    alignas(64) float memory[16] = {};
    const double start = thread_seconds();
    const double operations = set.peak(kind, rounds, memory);
    return {operations, thread_seconds() - start};
}

// Runs tasks on a new team; task `failing` throws. Returns how many tasks are done, whether the exception arrived, and
// the number of threads.
std::tuple<int, bool, int> team(int threads, int tasks, int failing) {
    require(threads > 0 && threads <= 1024 && tasks >= 0, "threads: 1 to 1024; tasks: at least 0");
    Team team(threads);
    std::atomic<int> done{0};
    bool thrown = false;
    try {
        team.run(tasks, [&](int task, int) {
            if (task == failing) throw std::runtime_error("a task has failed");
            ++done;
        });
    } catch (const std::runtime_error&) {
        thrown = true;
    }
    team.run(tasks, [](int, int) {});  // the team still works
    return {done.load(), thrown, team.size()};
}

// A class that only holds functions: one stub file then describes the whole module.
struct KernelFunctions {};

}  // namespace

void bind_kernels(nb::module_& module) {
    nb::class_<KernelFunctions> scope(
        module, "kernels",
        "Single kernels, for tests and measurements. `name` is an instruction set; arrays are\n"
        "float32, indices int32. Results are new matrices.");
    scope.def_static(
        "names",
        [] {
            std::vector<std::string> names;
            for (const Kernels* set : all_sets()) names.emplace_back(set->name);
            return names;
        },
        "Instruction sets that run here, those for tests included.");
    scope.def_static(
        "agrees_with_scalar", [](const std::string& name) { return agrees_with_scalar(set_named(name)); },
        nb::arg("name"), "Whether the set computes what the scalar kernels compute.");
    nb::class_<PackedLinear>(scope, "Linear", "A linear map y = W x + b, packed for one instruction set.")
        .def(nb::init<const std::string&, Matrix, std::optional<Vector>, const std::string&>(), nb::arg("name"),
             nb::arg("weight"), nb::arg("bias").none(), nb::arg("dtype"),
             "weight (out, in), bias (out), dtype f32, bf16 or i8.")
        .def_prop_ro("panel", &PackedLinear::panel, "Columns of y that are computed together.")
        .def("__call__", &PackedLinear::answer, nb::arg("x"), nb::arg("finish") = "none",
             nb::arg("index").none() = nb::none(),
             "finish(W x + b) of x (n, in), or of its rows index (m) → (n or m, out).")
        .def("into", &PackedLinear::into, nb::arg("y"), nb::arg("x"), nb::arg("finish"), nb::arg("start"),
             nb::arg("stop"), nb::arg("index").none() = nb::none(),
             "The same, into columns start … stop of y, whole panels.")
        .def("seconds", &PackedLinear::seconds, nb::call_guard<WithoutGil>(), nb::arg("x"), nb::arg("finish"),
             nb::arg("repeats"),
             "Processor seconds of `repeats` multiplications, and of as many preparations of x (n, in).");
    scope.def_static("peak", &peak, nb::call_guard<WithoutGil>(), nb::arg("name"), nb::arg("dtype"), nb::arg("rounds"),
                     "Operations and processor seconds of products that never leave the registers.");
    scope.def_static(
        "team", &team, nb::arg("threads"), nb::arg("tasks"), nb::arg("failing") = -1,
        "Runs tasks on a new team; task `failing` throws → tasks done, whether the exception arrived, threads.");
    scope.def_static("attend", &attend, nb::arg("name"), nb::arg("qkv"), nb::arg("heads"),
                     nb::arg("from_others") = false,
                     "qkv (n, 3 heads width) → context (n, heads width), received attention (heads, n).");
    scope.def_static("attend_seconds", &attend_seconds, nb::call_guard<WithoutGil>(), nb::arg("name"), nb::arg("qkv"),
                     nb::arg("heads"), nb::arg("scored"), nb::arg("repeats"),
                     "Processor seconds of `repeats` attentions, all heads; `scored`: with received attention.");
    scope.def_static("attend_first", &attend_first, nb::arg("name"), nb::arg("query"), nb::arg("key_value"),
                     nb::arg("heads"),
                     "query (1, heads width), key_value (n, 2 heads width) → context (1, heads width).");
    scope.def_static("add_norm", &add_norm, nb::arg("name"), nb::arg("y"), nb::arg("residual").none(), nb::arg("gain"),
                     nb::arg("shift"), nb::arg("epsilon"), nb::arg("index").none() = nb::none(),
                     "LayerNorm of y (n, d) + residual (n, d), or its rows index (n); gain and shift (d).");
    scope.def_static(
        "embed", &embed, nb::arg("name"), nb::arg("tables"), nb::arg("ids"), nb::arg("gain"), nb::arg("shift"),
        nb::arg("epsilon"),
        "LayerNorm of the sums of rows ids (n) of three tables (rows, d): words, positions, segments → (n, d).");
}

}  // namespace ziggurat
