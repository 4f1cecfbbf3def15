"""What processes use, from /proc."""

import os
import time

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
CORES = os.cpu_count() or 1


def threads(pid):
    return [int(thread) for thread in os.listdir("/proc/%d/task" % pid)]


def _ticks(pid):
    with open("/proc/%d/stat" % pid) as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND


def _fine(pid):
    """In nanosecond steps, of the threads that live; None where the kernel does not keep it."""
    total = 0
    try:
        for thread in threads(pid):
            with open("/proc/%d/task/%d/schedstat" % (pid, thread)) as file:
                total += int(file.read().split()[0])
    except FileNotFoundError:
        return None
    return total / 1e9


class Cpu:
    """The CPU seconds of a process since this was made."""

    def __init__(self, pid):
        self.pid, self.began = pid, (_ticks(pid), _fine(pid))

    def seconds(self):
        ticks, fine = _ticks(self.pid) - self.began[0], _fine(self.pid)
        if fine is None or self.began[1] is None:
            return ticks
        fine -= self.began[1]
        # The fine clock misses threads that have ended meanwhile; the coarse one does not.
        return ticks if abs(ticks - fine) > 0.05 + 0.02 * ticks else fine


class Machine:
    """How busy the machine was with something else than the processes named, since this was made."""

    def __init__(self, *pids):
        self.known = [Cpu(pid) for pid in pids]
        self.busy, self.own, self.at = self._busy(), os.times(), time.monotonic()

    @staticmethod
    def _busy():
        with open("/proc/stat") as file:
            user, nice, system, _, _, interrupts, soft, steal = [int(x) for x in file.readline().split()[1:9]]
        return (user + nice + system + interrupts + soft + steal) / TICKS_PER_SECOND

    def foreign_share(self):
        """Of all cores. It may come out a little below zero: the kernel counts the machine in ticks."""
        own = sum(os.times()[:4]) - sum(self.own[:4])
        known = own + sum(cpu.seconds() for cpu in self.known)
        return (self._busy() - self.busy - known) / ((time.monotonic() - self.at) * CORES)


def memory(pid):
    """Resident bytes now, and at most so far."""
    with open("/proc/%d/status" % pid) as file:
        fields = dict(line.split(":", 1) for line in file)
    return {"rss": int(fields["VmRSS"].split()[0]) * 1024, "rss_peak": int(fields["VmHWM"].split()[0]) * 1024}


def machine_name():
    with open("/proc/cpuinfo") as file:
        models = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    return "%d cores, %s" % (CORES, models[0] if models else "unknown CPU")
