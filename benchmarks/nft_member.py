"""What a change costs on its way from a fact to the kernel's table, at several sizes of the table.

    python -m benchmarks.nft_member --chains 0 100 1000

Every change goes through `apply`, `flush` and `commit`, in a network namespace of its own. `chains` is the number of
policies, each with a rule group and a pod of its own and a group of `--members` addresses; "one pod more" joins rules
that are there already, "one policy more" brings a policy and a pod. "whole table" is what a restarted agent does, and
"self-check" reads all of it back. Needs root.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable, Iterable

from bus_schemas.ids import GroupId, NodeName, PodKey, RulesId
from bus_schemas.policy import Attachment, Direction, Group, Match, PortRange, Rule, Rules, TierRules
from bus_schemas.subjects import ATTACHMENT, GROUP, RULES, Fact
from services.node_dataplane.nft.driver import NftDriver
from services.node_dataplane.nft.table import PolicyTable
from tests.support.netns import namespaces

NODE = NodeName("node")
SEGMENT = 256


def policy(n: int) -> Fact:
    rule = Rule(
        action="allow",
        protocol=6,
        source=Match(groups=(GroupId(f"s:{n}"),)),
        destination=Match(ports=(PortRange(first=80, last=80),)),
    )
    return Fact(RULES, (f"policy-{n}",), Rules(policy=f"NetworkPolicy/default/policy-{n}", ingress=(rule,)))


def members(n: int, numbers: Iterable[int]) -> Fact:
    packed = b"".join(bytes((10, 200 + (i >> 16 & 7), i >> 8 & 255, i & 255)) for i in sorted(numbers))
    return Fact(GROUP, (f"s:{n}", "0"), Group(v4=packed, selector=f"app == '{n}'"))


def pod(table: PolicyTable, number: int, of: int) -> None:
    """A pod under policy `of`."""
    key = PodKey("default", f"pod-{number}")
    address = f"10.{number >> 16 & 127}.{number >> 8 & 255}.{number & 255}"
    table.set_endpoint(key, f"tor{number:011x}", (address,), "container")
    ingress = Direction(tiers=(TierRules(tier="default", rules=(RulesId(f"policy-{of}"),)),), default="allow")
    message = Attachment(
        node=NODE,
        namespace=key.namespace,
        name=key.name,
        container="container",
        ingress=ingress,
        egress=Direction(default="allow"),
    )
    table.apply(Fact(ATTACHMENT, (NODE, *key), message))


def build(chains: int, size: int) -> PolicyTable:
    table = PolicyTable()
    for n in range(chains):
        table.apply(policy(n))
        table.apply(members(n, range(size)))
        pod(table, n, n)
    return table


def commit(table: PolicyTable, driver: NftDriver) -> None:
    transaction = table.flush().transaction
    assert transaction is not None
    driver.commit(transaction)
    table.committed(transaction)


def timed(what: str, repeat: int, change: Callable[[int], None]) -> None:
    """Prints p50 and p99 in microseconds."""
    spent = []
    for number in range(repeat):
        started = time.perf_counter()
        change(number)
        spent.append((time.perf_counter() - started) * 1e6)
    spent.sort()
    print(f"  {what:<28} {statistics.median(spent):>10.0f} {spent[int(len(spent) * 0.99)]:>10.0f}")


def measure(chains: int, size: int, repeat: int) -> None:
    with namespaces(1) as (namespace,), namespace.inside(), NftDriver() as driver:
        print(f"{chains} chains, {size} members each{'':<14} p50 us     p99 us")

        started = time.perf_counter()
        table = build(max(chains, 1), size)
        transaction = table.whole()
        text = str(transaction)
        middle = time.perf_counter()
        driver.commit(transaction)
        table.committed(transaction)
        ended = time.perf_counter()
        print(
            f"  first load: model and text {(middle - started) * 1e3:.0f} ms,"
            f" kernel {(ended - middle) * 1e3:.0f} ms, {len(text) / 1e6:.2f} MB"
        )

        def member(number: int) -> None:
            table.apply(members(0, range(size + 1 - number % 2)))
            commit(table, driver)

        counter = itertools.count(1_000_000)

        def join(number: int) -> None:
            pod(table, next(counter), 0)
            commit(table, driver)

        def leave(number: int) -> None:
            table.remove_endpoint(PodKey("default", f"pod-{1_000_000 + number}"))
            commit(table, driver)

        def arrive(number: int) -> None:
            n = next(counter)
            table.apply(policy(n))
            table.apply(members(n, range(size)))
            pod(table, n, n)
            commit(table, driver)

        def rewrite(number: int) -> None:
            rule = Rule(action="allow", protocol=6 if number % 2 else 17)
            table.apply(Fact(RULES, ("policy-0",), Rules(policy="rewritten", ingress=(rule,))))
            commit(table, driver)

        def replace(number: int) -> None:
            whole = table.whole()
            driver.commit(whole)
            table.committed(whole)

        def check(number: int) -> None:
            expected = table.expected()
            assert expected is not None
            assert driver.verify(expected) == []

        timed("one member", repeat, member)
        timed("one pod more", repeat, join)
        timed("one pod less", repeat, leave)
        few = max(5, repeat // 20)
        timed("one policy more", few, arrive)
        timed("whole table, atomically", 5, replace)
        timed("self-check", 3, check)
        timed("one policy's rules", few, rewrite)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chains", type=int, nargs="+", default=[0, 100, 1000])
    parser.add_argument("--members", type=int, default=100)
    parser.add_argument("--repeat", type=int, default=400)
    options = parser.parse_args()
    assert options.members < SEGMENT, "one segment is rewritten by one change"
    for chains in options.chains:
        measure(chains, options.members, options.repeat)


if __name__ == "__main__":
    main()
