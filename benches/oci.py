"""Times `run` of one bundle by several runtimes, alternating, measures their peak memory, and prints medians and ratios. Called by
oci.sh."""
import os, statistics, subprocess, sys, time

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


def peak(name):
    """KiB; the middle of a few runs."""
    run = lambda number: subprocess.run([f"{bundle}/peak", *command(name, f"peak-{number}")], stdout=subprocess.PIPE, check=True)
    return statistics.median(int(run(number).stdout) for number in range(5))


names = ["floor", *candidates]
times = {name: [] for name in names}
for number in range(-5, rounds):
    for name in names:
        elapsed = once(name, number)
        if number >= 0:
            times[name].append(elapsed)
peaks = {name: peak(name) for name in names}
middle = {name: statistics.median(times[name]) for name in names}
print(f"load {os.getloadavg()[0]:.2f}, {rounds} rounds each, alternating, after 5 of warm-up")
print(f"{'':12} {'median ms':>10} {'min ms':>8} {'x floor':>8} {'x crun':>8} {'peak KiB':>9}")
for name in names:
    to_crun = f"{middle[name] / middle['crun']:8.2f}" if "crun" in middle else f"{'-':>8}"
    print(f"{name:12} {middle[name]:10.2f} {min(times[name]):8.2f} {middle[name] / middle['floor']:8.2f} {to_crun} {peaks[name]:9.0f}")
