"""Times `run` of one bundle by several runtimes, alternating, and prints medians and ratios. Called by oci.sh."""
import os, statistics, sys, time

rounds = int(sys.argv[1])
bundle = sys.argv[2]
floor = sys.argv[3].split()
candidates = dict(pair.split("=", 1) for pair in sys.argv[4:])


def command(name, number):
    if name == "floor":
        return floor
    identity = f"bench-{name}-{os.getpid()}-{number}"
    return [*candidates[name].split(), "--root", f"{bundle}/state-{name}", "run", "--bundle", bundle, identity]


def once(name, number):
    arguments = command(name, number)
    start = time.perf_counter()
    pid = os.posix_spawn(arguments[0], arguments, os.environ)
    _, status = os.waitpid(pid, 0)
    elapsed = (time.perf_counter() - start) * 1000
    if status:
        sys.exit(f"{name} failed: {' '.join(arguments)}")
    return elapsed


names = ["floor", *candidates]
times = {name: [] for name in names}
for number in range(-5, rounds):
    for name in names:
        elapsed = once(name, number)
        if number >= 0:
            times[name].append(elapsed)
middle = {name: statistics.median(times[name]) for name in names}
print(f"load {os.getloadavg()[0]:.2f}, {rounds} rounds each, alternating, after 5 of warm-up")
print(f"{'':12} {'median ms':>10} {'min ms':>8} {'x floor':>8} {'x crun':>8}")
for name in names:
    to_crun = f"{middle[name] / middle['crun']:8.2f}" if "crun" in middle else f"{'-':>8}"
    print(f"{name:12} {middle[name]:10.2f} {min(times[name]):8.2f} {middle[name] / middle['floor']:8.2f} {to_crun}")
