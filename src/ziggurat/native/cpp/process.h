// What happens to the process that threads run in: it is forked, and its interpreter ends.
#pragma once

#include <nanobind/nanobind.h>

namespace ziggurat {

// How many forks lie between this process and the one that loaded the library. Whatever was made at another number has
// threads that are not here, and perhaps a lock that one of them held: it is left alone, not even destroyed. (The
// process's own number would not do: in a container of its own a child may have its parent's.)
unsigned forks();

// Lets other Python threads run while it lives. Made and destroyed by a thread that has the interpreter's lock.
//
// A daemon thread that asks for that lock when the interpreter has begun to end is ended by Python (until 3.13) right
// where it asks; this destructor cannot be left like that, so the process would abort. So the end waits for all who are
// without the lock, and from then on nobody lets go of it any more: later calls compute with the lock, and Python ends
// their threads in its own code, as it does others.
class WithoutGil {
  public:
    WithoutGil();
    ~WithoutGil();
    WithoutGil(const WithoutGil&) = delete;
    WithoutGil& operator=(const WithoutGil&) = delete;

  private:
    PyThreadState* state_;  // null: has not let go
};

// Hears of forks and of the interpreter's end from now on. Once, when the module is made.
void watch_process();

}  // namespace ziggurat
