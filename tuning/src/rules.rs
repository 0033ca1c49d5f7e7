//! The rules, one row each. Data only: how a value is read is in `read.rs` and `disk.rs`, how it is judged in `judge.rs`.

use crate::{Rule, disk, judge, read};

/// Every rule, in the order it is shown.
pub const RULES: &[Rule] = &[
    Rule {
        code: "K01",
        what: "kernel",
        want: ">= 6.1",
        fix: "run a kernel of 6.1 or later: the rings use DEFER_TASKRUN",
        read: |machine| read::kernel_release(machine.root),
        judge: judge::kernel,
    },
    Rule {
        code: "K02",
        what: "kernel.io_uring_disabled",
        want: "0",
        fix: "sysctl -w kernel.io_uring_disabled=0",
        read: |machine| read::sysctl(machine.root, "kernel/io_uring_disabled").or(Some("0".to_string())),
        judge: judge::io_uring_disabled,
    },
    Rule {
        code: "M01",
        what: "memlock",
        want: ">= 64 MiB, or unlimited",
        fix: "ulimit -l unlimited, or LimitMEMLOCK=infinity in the unit",
        read: |_| read::memlock_bytes(),
        judge: judge::memlock,
    },
    Rule {
        code: "M02",
        what: "transparent_hugepage",
        want: "madvise or never",
        fix: "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled",
        read: |machine| read::chosen(machine.root, "sys/kernel/mm/transparent_hugepage/enabled"),
        judge: judge::huge_pages,
    },
    Rule {
        code: "F01",
        what: "nofile",
        want: ">= 100000",
        fix: "ulimit -Hn 100000, or LimitNOFILE=100000 in the unit",
        read: |_| read::nofile_hard(),
        judge: judge::nofile,
    },
    Rule {
        code: "D01",
        what: "file system of the data",
        want: "xfs or ext4",
        fix: "put --data-dir on a local xfs or ext4 file system",
        read: |machine| disk::file_system(machine.data_dir),
        judge: judge::file_system,
    },
    Rule {
        code: "D02",
        what: "disk scheduler",
        want: "none",
        fix: "echo none > /sys/block/DEVICE/queue/scheduler",
        read: |machine| disk::queue_choice(machine, "scheduler"),
        judge: judge::scheduler,
    },
    Rule {
        code: "D03",
        what: "free space for the data",
        want: ">= 1 GiB",
        fix: "free space, or choose another --data-dir",
        read: |machine| disk::free_bytes(machine.data_dir).map(|bytes| bytes.to_string()),
        judge: judge::free_space,
    },
    Rule {
        code: "N01",
        what: "net.core.somaxconn",
        want: ">= 4096",
        fix: "sysctl -w net.core.somaxconn=4096",
        read: |machine| read::sysctl(machine.root, "net/core/somaxconn"),
        judge: judge::somaxconn,
    },
    Rule {
        code: "N02",
        what: "tcp congestion control",
        want: "cubic on a local network",
        fix: "sysctl -w net.ipv4.tcp_congestion_control=cubic",
        read: |machine| read::sysctl(machine.root, "net/ipv4/tcp_congestion_control"),
        judge: judge::congestion,
    },
    Rule {
        code: "C01",
        what: "cpu governor",
        want: "performance",
        fix: "cpupower frequency-set -g performance",
        read: |machine| read::text(machine.root, "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        judge: judge::governor,
    },
    Rule {
        code: "C02",
        what: "clock source",
        want: "tsc or kvm-clock",
        fix: "echo tsc > /sys/devices/system/clocksource/clocksource0/current_clocksource",
        read: |machine| {
            read::text(machine.root, "sys/devices/system/clocksource/clocksource0/current_clocksource")
        },
        judge: judge::clock_source,
    },
];
