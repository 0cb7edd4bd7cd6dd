// Child: a command in a process group of its own, which dies with this process. No shell is involved; standard input
// and output are inherited. Started and waited for by the thread that lives as long as the process: the kernel ties the
// child's life to it.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

#include "base/error.h"

namespace conclave::cli {

struct ChildOptions {
  std::vector<std::string> command;      // as for execvp
  std::vector<std::string> environment;  // NAME=VALUE, added to this process's
};

class Child {
 public:
  [[nodiscard]] static Result<Child> start(const ChildOptions& options);

  // Its process group has the same number.
  [[nodiscard]] pid_t pid() const { return pid_; }
  // To the whole group.
  void signal(int number) const;
  // Its exit code as a shell has it (128 and the number for a signal), once it has ended. Reaps whatever else has
  // ended.
  [[nodiscard]] std::optional<int> ended();
  // Whether processes of the group are left.
  [[nodiscard]] bool group_lives() const;
  // Gives the terminal back to this process's group.
  void take_terminal_back() const;

 private:
  explicit Child(pid_t pid, bool has_terminal) : pid_(pid), has_terminal_(has_terminal) {}
  pid_t pid_;
  bool has_terminal_;
};

}  // namespace conclave::cli
