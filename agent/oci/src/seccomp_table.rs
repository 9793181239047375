//! The RuntimeDefault system call table: what is allowed, by purpose. Everything else fails with EPERM.
//! Not in it, with the reason: `bpf`, `perf_event_open`, `kexec_*`, modules, `reboot`, `swap*`, `mount*`
//! and their successors, `setns`, `unshare`, `open_by_handle_at`, `acct`, quotas, `iopl`/`ioperm` (each acts
//! on the guest, not on the container); `keyctl` and friends (keyrings are not namespaced); `userfaultfd`
//! and `io_uring_*` (attack surface; io_uring also opens sockets behind this filter's back); `ptrace` is
//! allowed, since kernels from 4.8 on apply this filter to the traced process too.

/// Reading, writing and naming files.
const FILES: &[&str] = &[
    "access", "chdir", "chmod", "chown", "close", "close_range", "copy_file_range", "creat", "dup", "dup2", "dup3",
    "faccessat", "faccessat2", "fadvise64", "fallocate", "fchdir", "fchmod", "fchmodat", "fchmodat2", "fchown",
    "fchownat", "fcntl", "fdatasync", "fgetxattr", "flistxattr", "flock", "fremovexattr", "fsetxattr", "fstat",
    "fstatfs", "fsync", "ftruncate", "futimesat", "getcwd", "getdents", "getdents64", "getxattr", "getxattrat",
    "ioctl", "lchown", "lgetxattr", "link", "linkat", "listxattr", "listxattrat", "llistxattr", "lremovexattr",
    "lseek", "lsetxattr", "lstat", "mkdir", "mkdirat", "mknod", "mknodat", "newfstatat", "open", "openat",
    "openat2", "pread64", "preadv", "preadv2", "pwrite64", "pwritev", "pwritev2", "read", "readahead", "readlink",
    "readlinkat", "readv", "removexattr", "removexattrat", "rename", "renameat", "renameat2", "rmdir", "sendfile",
    "setxattr", "setxattrat", "splice", "stat", "statfs", "statmount", "listmount", "statx", "symlink", "symlinkat",
    "sync", "sync_file_range", "syncfs", "tee", "truncate", "umask", "unlink", "unlinkat", "utime", "utimensat",
    "utimes", "vmsplice", "write", "writev", "cachestat",
];

/// Waiting for files and being told of changes.
const EVENTS: &[&str] = &[
    "epoll_create", "epoll_create1", "epoll_ctl", "epoll_pwait", "epoll_pwait2", "epoll_wait", "eventfd",
    "eventfd2", "fanotify_mark", "inotify_add_watch", "inotify_init", "inotify_init1", "inotify_rm_watch",
    "io_cancel", "io_destroy", "io_getevents", "io_pgetevents", "io_setup", "io_submit", "pipe", "pipe2", "poll",
    "ppoll", "pselect6", "select", "signalfd", "signalfd4", "timerfd_create", "timerfd_gettime", "timerfd_settime",
];

/// Memory.
const MEMORY: &[&str] = &[
    "brk", "madvise", "map_shadow_stack", "membarrier", "memfd_create", "memfd_secret", "mincore", "mlock",
    "mlock2", "mlockall", "mmap", "mprotect", "mremap", "mseal", "msync", "munlock", "munlockall", "munmap",
    "pkey_alloc", "pkey_free", "pkey_mprotect", "process_madvise", "process_mrelease", "remap_file_pages",
];

/// Processes and threads.
const PROCESSES: &[&str] = &[
    "arch_prctl", "capget", "capset", "execve", "execveat", "exit", "exit_group", "fork", "futex", "futex_requeue",
    "futex_wait", "futex_waitv", "futex_wake", "get_robust_list", "get_thread_area", "getcpu", "getegid", "geteuid",
    "getgid", "getgroups", "getpgid", "getpgrp", "getpid", "getppid", "getpriority", "getresgid", "getresuid",
    "getrlimit", "getrusage", "getsid", "gettid", "getuid", "ioprio_get", "ioprio_set", "kcmp", "landlock_add_rule",
    "landlock_create_ruleset", "landlock_restrict_self", "modify_ldt", "pidfd_getfd", "pidfd_open",
    "pidfd_send_signal", "prctl", "prlimit64", "process_vm_readv", "process_vm_writev", "ptrace", "rseq",
    "sched_get_priority_max", "sched_get_priority_min", "sched_getaffinity", "sched_getattr", "sched_getparam",
    "sched_getscheduler", "sched_rr_get_interval", "sched_setaffinity", "sched_setattr", "sched_setparam",
    "sched_setscheduler", "sched_yield", "seccomp", "set_robust_list", "set_thread_area", "set_tid_address",
    "setfsgid", "setfsuid", "setgid", "setgroups", "setpgid", "setpriority", "setregid", "setresgid", "setresuid",
    "setreuid", "setrlimit", "setsid", "setuid", "vfork", "wait4", "waitid",
];

/// Signals.
const SIGNALS: &[&str] = &[
    "alarm", "getitimer", "kill", "pause", "restart_syscall", "rt_sigaction", "rt_sigpending", "rt_sigprocmask",
    "rt_sigqueueinfo", "rt_sigreturn", "rt_sigsuspend", "rt_sigtimedwait", "rt_tgsigqueueinfo", "setitimer",
    "sigaltstack", "tgkill", "tkill",
];

/// Reading clocks, sleeping and timers.
const TIME: &[&str] = &[
    "adjtimex", "clock_adjtime", "clock_getres", "clock_gettime", "clock_nanosleep", "gettimeofday", "nanosleep",
    "time", "timer_create", "timer_delete", "timer_getoverrun", "timer_gettime", "timer_settime", "times",
];

/// Sockets, but for `socket` itself, which has a rule of its own.
const NETWORK: &[&str] = &[
    "accept", "accept4", "bind", "connect", "getpeername", "getsockname", "getsockopt", "listen", "recvfrom",
    "recvmmsg", "recvmsg", "sendmmsg", "sendmsg", "sendto", "setsockopt", "shutdown", "socketpair",
];

/// System V and POSIX IPC, in the pod's own namespace.
const IPC: &[&str] = &[
    "mq_getsetattr", "mq_notify", "mq_open", "mq_timedreceive", "mq_timedsend", "mq_unlink", "msgctl", "msgget",
    "msgrcv", "msgsnd", "semctl", "semget", "semop", "semtimedop", "shmat", "shmctl", "shmdt", "shmget",
];

/// About the system.
const SYSTEM: &[&str] = &["getrandom", "sysinfo", "syslog", "uname"];

/// All of the above.
pub(crate) const ALLOWED: [&[&str]; 9] =
    [FILES, EVENTS, MEMORY, PROCESSES, SIGNALS, TIME, NETWORK, IPC, SYSTEM];

/// Allowed with a capability: its short name and the calls.
pub(crate) const ALLOWED_WITH: &[(&str, &[&str])] = &[
    ("SYS_CHROOT", &["chroot"]),
    ("SYS_TIME", &["clock_settime", "settimeofday"]),
    ("SYS_NICE", &["get_mempolicy", "mbind", "set_mempolicy", "set_mempolicy_home_node", "migrate_pages", "move_pages"]),
    ("SYS_TTY_CONFIG", &["vhangup"]),
];

/// Values of personality(2) that only change how things are reported or laid out: PER_LINUX, PER_LINUX32,
/// both with UNAME26, and the query.
pub(crate) const PERSONALITIES: [u64; 5] = [0x0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// Refused even to a container without a profile. Sockets of the vsock family reach the host and the
/// agent's own port; io_uring would open them unseen; bpf can take away the device filter.
pub(crate) const NEVER: &[&str] = &["bpf", "io_uring_enter", "io_uring_register", "io_uring_setup"];
