"""Facts about the machine, from the output of macOS's tools and from Linux's files."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.bench.energy import RaplMeter
from app.bench.machine_state import linux_state, mac_state, machine_facts, machine_state, state_text

MAC = {
    "sysctl -n kern.memorystatus_vm_pressure_level": "2\n",
    "pmset -g batt": "Now drawing from 'Battery Power'\n -InternalBattery-0 (id=4653155)\t81%; discharging\n",
    "pmset -g": "Currently in use:\n lowpowermode         1\n sleep                1\n",
    "notifyutil -g com.apple.system.thermalpressurelevel": "",
    "pmset -g therm": "CPU_Scheduler_Limit \t= 100\nCPU_Speed_Limit \t= 85\n",
}


def test_a_mac() -> None:
    assert mac_state(MAC.__getitem__) == ("warning", "Battery Power, low power mode", "CPU speed limit 85%")
    assert mac_state(lambda command: "") == (None, None, "thermal pressure not known")


@pytest.mark.parametrize(
    ("printed", "words"),
    [
        ("com.apple.system.thermalpressurelevel 0\n", "thermal pressure nominal"),
        ("com.apple.system.thermalpressurelevel 2\n", "thermal pressure heavy"),
        ("com.apple.system.thermalpressurelevel 77\n", "thermal pressure not known"),
        ("com.apple.system.thermalpressurelevel: failed\n", "thermal pressure not known"),
    ],
)
def test_throttling_on_apple_silicon_is_read_from_the_notification(printed: str, words: str) -> None:
    """`pmset -g therm` says there only that no warning was recorded."""
    silicon = MAC | {
        "pmset -g therm": "Note: No thermal warning level has been recorded\n",
        "notifyutil -g com.apple.system.thermalpressurelevel": printed,
    }
    assert mac_state(silicon.__getitem__)[2] == words


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        (" powermode            0", "Battery Power"),
        (" powermode            1", "Battery Power, low power mode"),
        (" powermode            2", "Battery Power, high power mode"),
        (" lowpowermode         0", "Battery Power"),
    ],
)
def test_the_power_mode_of_a_mac_by_either_of_its_names(setting: str, words: str) -> None:
    said = MAC | {"pmset -g": f"Currently in use:\n{setting}\n sleep                1\n"}
    assert mac_state(said.__getitem__)[1] == words


def write(root: Path, **files: str) -> None:
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_linux(tmp_path: Path) -> None:
    assert linux_state(tmp_path) == (None, None, None)
    write(
        tmp_path,
        proc__pressure__memory="some avg10=1.50 avg60=0.00 avg300=0.00 total=0\nfull avg10=0.00\n",
        sys__class__power_supply__AC__type="Mains\n",
        sys__class__power_supply__AC__online="0\n",
        sys__class__thermal__thermal_zone0__temp="45000\n",
        sys__class__thermal__thermal_zone1__temp="71400\n",
    )
    assert linux_state(tmp_path) == ("stalled 1.5% of the last 10 s", "battery", "71 °C")


def test_this_machine() -> None:
    assert machine_facts().memory_bytes > 0
    assert state_text(machine_state())


def test_energy_where_the_counters_can_be_read(tmp_path: Path) -> None:
    assert RaplMeter(tmp_path / "missing").read_j() is None
    assert RaplMeter(tmp_path).used_j(None) is None
    for name, reading in (("intel-rapl:0", 5_000_000), ("intel-rapl:1", 9_000_000), ("intel-rapl:0:0", 1)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "energy_uj").write_text(f"{reading}\n")
        (tmp_path / name / "max_energy_range_uj").write_text("10000000\n")
    meter = RaplMeter(tmp_path)
    before = meter.read_j()
    assert before == (5.0, 9.0), "the parts of a package are in its count already"
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("7000000\n")
    (tmp_path / "intel-rapl:1" / "energy_uj").write_text("500000\n")
    assert meter.used_j(before) == pytest.approx(2.0 + 1.5), "the second one began again"
    (tmp_path / "intel-rapl:1" / "energy_uj").unlink()
    assert meter.used_j(before) is None
