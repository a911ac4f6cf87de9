import pytest

from deepsteg_jax import memory
from deepsteg_jax.errors import UserError


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Return a function that fakes the files of Linux: megabytes free, taken, and of control groups."""
    monkeypatch.setattr(memory, "PROC", tmp_path / "proc")
    monkeypatch.setattr(memory, "CGROUPS", tmp_path / "cgroup")

    def write(path, text):
        path = tmp_path / path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def fake(free, taken=0, groups="", limits=()):
        write("proc/meminfo", f"MemTotal: 99999999 kB\nMemAvailable: {free * 1000000 // 1024} kB\n")
        write("proc/self/status", f"Name:\tpython\nVmRSS:\t{taken * 1000000 // 1024} kB\n")
        write("proc/self/cgroup", groups)
        for path, names, most, used, cache in limits:
            most = most if isinstance(most, str) else str(most * 10**6)
            write(f"cgroup/{path}/{names[0]}", most + "\n")
            write(f"cgroup/{path}/{names[1]}", f"{used * 10**6}\n")
            write(f"cgroup/{path}/memory.stat", f"anon 5\n{names[2]} {cache * 10**6}\n")

    return fake


NEW = "memory.max", "memory.current", "inactive_file"
OLD = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"


@pytest.mark.parametrize(
    ("groups", "limits", "wanted"),
    [
        ("", (), 3000),
        ("0::/\n", [("", NEW, 2000, 500, 100)], 1600),
        ("0::/a/b\n", [("a/b", NEW, "max", 1, 0), ("a", NEW, 900, 400, 0), ("", NEW, 5000, 1, 0)], 500),
        ("4:cpu,memory:/a\n3:pids:/a\n", [("memory/a", OLD, 800, 500, 200)], 500),
        ("0::/a\n", [("a", NEW, 100, 200, 0)], 0),
        ("garbage\n", (), 3000),
    ],
)
def test_available(machine, groups, limits, wanted):
    machine(3000, groups=groups, limits=limits)
    assert memory.available() == pytest.approx(wanted * 10**6, abs=2000)


def test_refusal_says_the_figures(machine):
    machine(2000, taken=300)
    memory.check(2_200_000_000, "hiding in 4000x3000")
    with pytest.raises(UserError, match=r"in 4000x3000 needs about 4\.9 GB of memory, 2\.3 GB are"):
        memory.check(4_900_000_000, "hiding in 4000x3000")


def test_nothing_is_refused_where_nothing_is_known(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "PROC", tmp_path)
    assert memory.available() is None
    memory.check(10**15, "hiding in 4000x3000")
