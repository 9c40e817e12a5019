"""Sensors read from the trees of two Jetsons, and what samples of them say."""

from dataclasses import replace

import pytest

from runtime.bench.watch import Watch, levels, power, throttled
from runtime.machine.sensors import Sample, find_sensors, whole
from tests.runtime.machine.boards import ORIN, THOR, write_board


def no_gpu():
    return None


def test_of_an_orin_every_rail_is_read_and_three_make_up_the_whole(tmp_path):
    sample = find_sensors(write_board(tmp_path, ORIN), no_gpu).sample(0.0)
    assert sample.watts == pytest.approx(
        {"VDD_GPU_SOC": 3.8, "VDD_CPU_CV": 1.9, "VIN_SYS_5V0": 5.0, "VDDQ_VDD2_1V8AO": 0.4}
    )
    assert whole(sample.watts) == ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0")
    assert sample.celsius == {"cpu-thermal": 48.5, "gpu-thermal": 45.0, "soc0-thermal": 47.0, "tj-thermal": 48.5}
    assert sample.megahertz == {"17000000.gpu": 1300.5, "policy0": 1728.0, "policy4": 2201.6}
    assert sample.events == {"oc1": 0, "oc2": 0, "oc3": 2}
    assert sample.brakes == frozenset()


def test_a_thor_measures_its_input_and_says_what_brakes_it(tmp_path):
    sample = find_sensors(write_board(tmp_path, THOR), no_gpu).sample(0.0)
    assert whole(sample.watts) == ("VIN",)
    assert sample.watts["VIN"] == pytest.approx(23.0)
    assert "gpu-thermal" not in sample.celsius  # switched off, it does not answer
    assert sample.brakes == {"gpu-throttle-alert", "devfreq-gpu-gpc-0"}


RAPL = {
    "sys/class/powercap/intel-rapl:0/name": "package-0",
    "sys/class/powercap/intel-rapl:0/energy_uj": "1000000",
    "sys/class/powercap/intel-rapl:0/max_energy_range_uj": "10000000",
    "sys/class/powercap/intel-rapl:0:0/name": "core",
    "sys/class/powercap/intel-rapl:0:0/energy_uj": "500000",
    "sys/class/powercap/intel-rapl:1/name": "psys",
    "sys/class/powercap/intel-rapl:1/energy_uj": "9000000",
}


def test_of_a_pc_the_packages_are_read_alone(tmp_path):
    sensors = find_sensors(write_board(tmp_path, RAPL), no_gpu)
    assert sensors.sample(0.0).joules == {"package-0": 1.0}
    assert sensors.wraps == {"package-0": 10.0}


def test_a_machine_without_sensors_gives_empty_samples(tmp_path):
    sample = find_sensors(tmp_path, no_gpu).sample(5.0)
    assert sample == Sample(5.0)
    assert power([sample, sample], {}, seconds=1.0, images=1) is None
    assert throttled([sample, sample]) == ()


def test_energy_is_the_mean_power_over_time_of_the_rails_that_make_up_the_whole():
    samples = [Sample(at, {"VDD_IN": watts, "VDD_SOC": 1.0}) for at, watts in ((0, 4.0), (1, 8.0), (5, 8.0))]
    found = power(samples, {}, seconds=5.0, images=10)
    assert found.of == ("VDD_IN",)
    assert found.watts == pytest.approx((6 * 1 + 8 * 4) / 5)
    assert found.joules_an_image == pytest.approx(3.8)
    assert (found.rails["VDD_IN"].most, found.rails["VDD_SOC"].mean) == (8.0, 1.0)


def test_rails_that_no_board_we_know_has_are_not_added_up():
    found = power([Sample(0.0, {"RAIL_A": 1.0}), Sample(1.0, {"RAIL_A": 1.0})], {}, seconds=1.0, images=1)
    assert (found.of, found.watts, found.joules_an_image) == ((), None, None)
    assert found.rails["RAIL_A"].mean == 1.0


def test_a_counter_of_energy_that_begins_again_is_followed():
    samples = [Sample(at, joules={"package-0": joules}) for at, joules in ((0.0, 8.0), (1.0, 9.0), (2.0, 1.0))]
    found = power(samples, {"package-0": 10.0}, seconds=2.0, images=3)
    assert (found.of, found.watts, found.joules_an_image) == (("package-0",), 1.5, 1.0)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, ()),
        ({"brakes": frozenset({"cpu-throttle-alert"})}, ("cpu-throttle-alert",)),
        ({"events": {"oc3": 3.0}}, ("oc3",)),
        ({"events": {"oc3": 2.0, "new": 1.0}}, ()),
        ({"caps": {"policy0": 1500.0}}, ("policy0 capped",)),
        ({"caps": {"policy0": 2300.0}}, ()),
    ],
)
def test_what_lowered_a_clock_is_named(changes, found):
    calm = Sample(0.0, caps={"policy0": 2200.0}, events={"oc3": 2.0})
    samples = [calm, replace(calm, at=1.0, **changes), replace(calm, at=2.0, events=changes.get("events", calm.events))]
    assert throttled(samples) == found


def test_a_watch_samples_from_the_first_moment_to_the_last_and_in_between(tmp_path):
    sensors = find_sensors(write_board(tmp_path, ORIN), no_gpu)
    ticks = iter(range(10_000))
    with Watch(sensors, lambda: float(next(ticks)), period=0.001) as watch:
        while len(watch.samples) < 3:
            pass
        (tmp_path / "sys/class/thermal/thermal_zone0/temp").write_text("90000")
    assert [sample.at for sample in watch.samples] == [float(at) for at in range(len(watch.samples))]
    assert levels(watch.samples, "celsius")["cpu-thermal"].most == 90.0
    assert watch.samples[0].celsius["cpu-thermal"] == 48.5
