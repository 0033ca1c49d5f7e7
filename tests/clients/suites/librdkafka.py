"""librdkafka's own integration suite (C and C++): every test that needs a broker, each in a process of its own.

It is run for the classic and for the consumer group protocol. Tests that librdkafka marks local or manual say nothing of a broker.
"""
import os
import re
import tempfile

from suites.case import KAFKA_VERSION, PYTHON, SHELL, SUITES, Case, Result, run

NAME = "librdkafka"
VARIANTS = ("classic", "consumer")
TESTS = SUITES / NAME / "tests"
# Quick mode tests nothing, or little, in these.
FULL_MODE = {"0018", "0019", "0022", "0026", "0030", "0045", "0050", "0061", "0077", "0082", "0089", "0098", "0102", "0113", "0122",
             "0132", "0137"}
SLOW_S = 600
# Kafka's default. With less, tests that start two consumers at once see two generations where they count on one.
REBALANCE_DELAY = ("group.initial.rebalance.delay.ms", "3000")
# Tests whose verdict hangs on a clock, or that need much of the machine: they run beside fewer others.
HEAVY = {"0038", "0044", "0053", "0055", "0056", "0077", "0125"}
# Tests that hold many: each part, named by its function or its words, is a case here.
PARTS = {
    "0081": [f"do_test_{p}" for p in (
        "unclean_destroy", "CreateTopics", "DeleteTopics", "CreatePartitions", "CreateAcls", "DescribeAcls", "DeleteAcls",
        "AlterConfigs", "IncrementalAlterConfigs", "DescribeConfigs", "DescribeConfigs_groups", "DeleteRecords",
        "ListConsumerGroups", "DescribeConsumerGroups", "DescribeTopics", "DescribeCluster",
        "DescribeConsumerGroups_with_authorized_ops", "DeleteGroups", "DeleteConsumerGroupOffsets", "ListOffsets",
        "AlterConsumerGroupOffsets", "ListConsumerGroupOffsets", "UserScramCredentials")],
    "0113": ["a_assign_tests", "b_subscribe_with_cb_test", "c_subscribe_no_cb_test", "d_change_subscription_add_topic",
             "e_change_subscription_remove_topic", "f_assign_call_cooperative", "g_incremental_assign_call_eager", "h_delete_topic",
             "i_delete_topic_2", "j_delete_topic_no_rb_callback", "k_add_partition", "l_unsubscribe", "m_unsubscribe_2", "n_wildcard",
             "o_java_interop", "s_subscribe_when_rebalancing", "t_max_poll_interval_exceeded", "u_multiple_subscription_changes",
             "v_commit_during_rebalance", "x_incremental_rebalances"],
    "0137": [f"do_test_consume_batch_{p}" for p in ("with_seek", "with_pause_and_resume_different_batch",
             "with_pause_and_resume_same_batch", "store_offset", "control_msgs", "eof_position")],
    "0061": ["Test consumer lag without transactions", "Test consumer lag with transactions"],
}
ENTRY = re.compile(r"^    _TEST\((\w+),\s*([^;]*?)\),\n(?=    _TEST|#|\n|    /\*)", re.M)
# | name | state | time | what the test said |
ROW = re.compile(r"^\|\s*(\w+)\s*\|\s*(PASSED|FAILED|SKIPPED|DNS|RUNNING)\s*\|[^|\n]*\|?[ \t]*([^\n]*)", re.M)
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def cases():
    """All cases, from the table in the suite's test.c. The suite chooses by number: tests that share one are one case."""
    numbers = {}
    text = (TESTS / "test.c").read_text()
    for name, rest in ENTRY.findall(text[text.index("struct test tests[]"):]):
        if "TEST_F_LOCAL" in rest or "TEST_F_MANUAL" in rest:
            continue
        scenario = re.search(r'\.scenario = "([^"]*)"', rest)
        numbers.setdefault((name[:4], scenario.group(1).split(",")[0] if scenario else "default"), []).append(name)
    out = []
    for (number, scenario), names in numbers.items():
        settings = (("num.partitions", "4"), REBALANCE_DELAY, ("auto.create.topics.enable", "false" if scenario == "noautocreate" else "true"))
        weight, limit_s = (2 if number in HEAVY else 1), (SLOW_S if number in FULL_MODE else 240)
        for variant in VARIANTS:
            for part in PARTS.get(number, [None]):
                name = " ".join(names) if part is None else f"{names[0]}/{part}"
                out.append(Case(NAME, variant, name, settings, limit_s, weight))
    return out


def execute(case, bootstrap, work):
    """Runs one case. The verdict is the test's row in the suite's own summary."""
    names, _, part = case.name.partition("/")
    number = names[:4]
    with tempfile.TemporaryDirectory(dir=work) as folder:
        # As if in the suite's own folder, which some read from, yet what they write is away with it.
        os.mkdir(f"{folder}/tests")
        os.symlink(TESTS.parent / "src", f"{folder}/src")
        conf = f"{folder}/test.conf"
        with open(conf, "w") as f:
            f.write(f"bootstrap.servers={bootstrap}\nbroker.address.family=v4\ntest.topic.random=true\ntest.timeout.multiplier=2\n")
        env = {"RDKAFKA_TEST_CONF": conf, "TESTS": number, "TEST_KAFKA_VERSION": KAFKA_VERSION, "BROKERS": bootstrap,
               "TEST_CONSUMER_GROUP_PROTOCOL": case.variant, "KAFKA_PATH": str(SHELL), "PELTON_SUITE_PYTHON": str(PYTHON),
               "LD_LIBRARY_PATH": f"{TESTS}/../src:{TESTS}/../src-cpp"}
        if part:
            env["SUBTESTS"] = part if " " in part else f"{part}:"
        command = [str(TESTS / "test-runner"), "-p1", "-L"]
        if number not in FULL_MODE:
            command.append("-Q")
        if ("auto.create.topics.enable", "false") in case.settings:
            command += ["-s", "noautocreate"]
        code, output = run(command, f"{folder}/tests", env, case.limit_s)
    return judge(names.split(), code, COLOUR.sub("", output), case.limit_s)


def judge(names, code, output, limit_s):
    """The verdict is the tests' rows in the suite's own summary, with what the rows say; all of them must have passed."""
    if code is None:
        return Result("fail", f"not done after {limit_s} s", output)
    rows = {row[0]: (row[1], row[2].strip(" |")) for row in ROW.findall(output)}
    # A failure that leaves threads behind aborts before the summary; the first failure told is the cause.
    told = re.findall(r'^### Test "(?!<MAIN>).*" failed at .*###\n(.*)', output, re.M) or [f"exit code {code}, no row in the summary"]
    mine = [rows.get(n, ("none", told[0])) for n in names]
    bad = [said or "failed" for state, said in mine if state not in ("PASSED", "SKIPPED")]
    if bad:
        return Result("fail", "; ".join(dict.fromkeys(bad)), output)
    if code != 0:
        return Result("fail", f"exit code {code}: " + " ".join(output.split("\n")[-3:]), output)
    if all(state == "SKIPPED" for state, _ in mine):
        return Result("skip", mine[0][1] or "skipped by the suite", output)
    # A part whose every subtest was skipped passes without having tested anything.
    skipped = re.findall(r"\[ .*: SKIP: (.*?) ?\]", output)
    if skipped and not re.search(r": PASS \(", output):
        return Result("skip", skipped[0].strip(), output)
    return Result("pass", "", output)
