#include "cli/child.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string_view>
#include <system_error>

namespace conclave::cli {
namespace {

constexpr int kNotExecutable = 126;
constexpr int kNotFoundCommand = 127;

// Between fork and exec: this process has threads, so nothing that may take a lock.
[[noreturn]] void become(char* const* arguments, char** environment, pid_t parent, bool terminal) {
  setpgid(0, 0);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(kNotExecutable);  // it died before that took hold
  if (terminal) tcsetpgrp(STDIN_FILENO, getpid());
  struct sigaction by_default = {};
  by_default.sa_handler = SIG_DFL;
  for (int number = 1; number < NSIG; ++number) sigaction(number, &by_default, nullptr);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);  // NOLINT(concurrency-mt-unsafe): the only thread of the new process
  environ = environment;
  execvp(arguments[0], arguments);
  const int error = errno;
  const auto say = [](std::string_view text) { (void)!write(STDERR_FILENO, text.data(), text.size()); };
  say("conclave: ");
  say(arguments[0]);
  say(error == ENOENT ? ": not found\n" : ": cannot be run\n");
  _exit(error == ENOENT ? kNotFoundCommand : kNotExecutable);
}

}  // namespace

Result<Child> Child::start(const ChildOptions& options) {
  std::vector<char*> arguments;
  arguments.reserve(options.command.size() + 1);
  for (const std::string& argument : options.command) arguments.push_back(const_cast<char*>(argument.c_str()));
  arguments.push_back(nullptr);
  const auto is_replaced = [&](std::string_view entry) {
    return std::ranges::any_of(options.environment, [&](const std::string& added) {
      return entry.starts_with(std::string_view(added).substr(0, added.find('=') + 1));
    });
  };
  std::vector<char*> environment;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    if (!is_replaced(*entry)) environment.push_back(*entry);
  }
  for (const std::string& entry : options.environment) environment.push_back(const_cast<char*>(entry.c_str()));
  environment.push_back(nullptr);

  // What the command leaves behind comes to this process, to be waited for.
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  const bool terminal = isatty(STDIN_FILENO) != 0 && tcgetpgrp(STDIN_FILENO) == getpgrp();
  const pid_t self = getpid();
  const pid_t pid = fork();
  if (pid < 0) return fail(ErrorCode::kIo, "no process can be started: {}", std::generic_category().message(errno));
  if (pid == 0) become(arguments.data(), environment.data(), self, terminal);
  setpgid(pid, pid);  // whoever is first, it is done when either goes on
  return Child(pid, terminal);
}

void Child::signal(int number) const {
  kill(-pid_, number);
}

std::optional<int> Child::ended() {
  std::optional<int> code;
  int status = 0;
  for (pid_t pid = 0; (pid = waitpid(-1, &status, WNOHANG | WUNTRACED)) > 0;) {
    // Stopped from its terminal: nobody could wake it, since the terminal is its own; a holder does not sleep.
    if (WIFSTOPPED(status)) {
      if (pid == pid_ && has_terminal_) signal(SIGCONT);
      continue;
    }
    if (pid == pid_) code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
  }
  return code;
}

bool Child::group_lives() const {
  return kill(-pid_, 0) == 0;
}

void Child::take_terminal_back() const {
  if (has_terminal_) tcsetpgrp(STDIN_FILENO, getpgrp());  // SIGTTOU is blocked here
}

}  // namespace conclave::cli
