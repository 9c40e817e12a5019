"""The files by which two Jetson boards say what they are, as trees under a root of one's own.

Not copied from a board: put together from NVIDIA's Jetson Linux Developer Guide (r36.4 for Orin, r38.2 for Thor), the
kernel's documentation of hwmon (ina3221, ina238), thermal, devfreq and cpufreq, and what owners of such boards have
published of their files. Figures are plausible, not measured.
"""

DIRECTORY = None
"""Content of a file that cannot be read: the sensor of a part that is switched off answers EAGAIN."""


def hwmon(number, name, **files):
    return {f"sys/class/hwmon/hwmon{number}/{file}": content for file, content in {"name": name, **files}.items()}


def zones(**celsius):
    files = {}
    for number, (name, value) in enumerate(celsius.items()):
        place = f"sys/class/thermal/thermal_zone{number}"
        files |= {f"{place}/type": f"{name}-thermal", f"{place}/temp": value and str(round(1000 * value))}
    return files


def coolers(**states):
    files = {}
    for number, (name, state) in enumerate(states.items()):
        place = f"sys/class/thermal/cooling_device{number}"
        files |= {f"{place}/type": name.replace("_", "-"), f"{place}/cur_state": str(state)}
    return files


def clock(place, now, low, high, prefix=""):
    values = {"cur": now, "min": low, "max": high}
    return {f"{place}/{prefix}{end}_freq": str(value) for end, value in values.items()}


def rails(*labels):
    """The channels of an INA3221, (label, mV, mA) each; 'NC' is not connected. Channels 4 to 7 are of the shunts."""
    files = {}
    for number, (label, volts, amperes) in enumerate(labels, 1):
        files |= {f"in{number}_label": label, f"in{number}_input": str(volts), f"curr{number}_input": str(amperes)}
    return files | {"in7_label": "sum of shunt voltages", "in7_input": "5000"}


ORIN = {
    "proc/device-tree/model": "NVIDIA Jetson AGX Orin Developer Kit\0",
    "proc/device-tree/compatible": "nvidia,p3737-0000+p3701-0005\0nvidia,p3701-0005\0nvidia,tegra234\0",
    "proc/cpuinfo": "processor\t: 0\nmodel name\t: ARMv8 Processor rev 1 (v8l)\nBogoMIPS\t: 62.50\n",
    "proc/meminfo": "MemTotal:       64349480 kB\nMemFree:        50000000 kB\n",
    "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, "
    "DATE: Wed Jan  8 01:49:37 UTC 2025\n# KERNEL_VARIANT: oot\n",
    "etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=MAXN >\nCPU_ONLINE CORE_0 1\n< POWER_MODEL ID=2 NAME=MODE_30W >\n",
    "var/lib/nvpmodel/status": "pmode:0002",
    "var/lib/dpkg/status": "Package: nvidia-jetpack\nStatus: install ok installed\nArchitecture: arm64\n"
    "Version: 6.2+b77\n\nPackage: other\nVersion: 1.0\n",
    "usr/lib/aarch64-linux-gnu/libnvinfer.so.10.3.0": "",
    "usr/local/cuda/version.json": '{"cuda": {"name": "CUDA SDK", "version": "12.6.68"}}',
    **clock("sys/class/devfreq/17000000.gpu", 1300500000, 306000000, 1300500000),
    **clock("sys/devices/system/cpu/cpufreq/policy0", 1728000, 729600, 2201600, "scaling_"),
    **clock("sys/devices/system/cpu/cpufreq/policy4", 2201600, 729600, 2201600, "scaling_"),
    **hwmon(
        3, "ina3221", **rails(("VDD_GPU_SOC", 19000, 200), ("VDD_CPU_CV", 19000, 100), ("VIN_SYS_5V0", 5000, 1000))
    ),
    **hwmon(4, "ina3221", **rails(("NC", 0, 0), ("VDDQ_VDD2_1V8AO", 5000, 80), ("NC", 0, 0))),
    **hwmon(2, "soctherm_oc", oc1_event_cnt="0", oc2_event_cnt="0", oc3_event_cnt="2"),
    **hwmon(0, "pwmfan", pwm1="64"),
    **zones(cpu=48.5, gpu=45.0, cv0=DIRECTORY, soc0=47.0, tj=48.5),
    **coolers(pwm_fan=3, cpu_throttle_alert=0, gpu_throttle_alert=0),
}
THOR = {
    "proc/device-tree/model": "NVIDIA Jetson AGX Thor Developer Kit\0",
    "proc/device-tree/compatible": "nvidia,p4071-0000+p3834-0008\0nvidia,p3834-0008\0nvidia,tegra264\0",
    "proc/meminfo": "MemTotal:       128802260 kB\n",
    "etc/nv_tegra_release": "# R38 (release), REVISION: 4.0, GCID: 43443517, BOARD: generic, EABI: aarch64, DATE: x\n",
    "var/lib/nvpmodel/status": "pmode:0001",
    **clock("sys/class/devfreq/gpu-gpc-0", 1575000000, 1575000000, 1575000000),
    **clock("sys/class/devfreq/gpu-nvd-0", 1000000000, 315000000, 1692000000),
    **clock("sys/devices/system/cpu/cpufreq/policy0", 972000, 54000, 2601000, "scaling_"),
    **hwmon(1, "ina3221", **rails(("VDD_GPU", 12000, 0), ("VDD_CPU_SOC_MSS", 12000, 500), ("VIN_SYS_5V0", 5000, 1300))),
    **hwmon(5, "ina238", in1_input="20000", curr1_input="1150", power1_input="23000000"),
    **zones(cpu=53.7, gpu=DIRECTORY, soc012=55.1, soc345=53.7, tj=55.1),
    **coolers(
        pwm_fan=1,
        cpu_throttle_alert=0,
        gpu_throttle_alert=1,
        devfreq_gpu_gpc_0=18,
        cpufreq_cpu0=0,
        soc012_throttle_alert=0,
    ),
}


def write_board(root, files):
    """Write the files of a board under `root`."""
    for path, content in files.items():
        place = root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        if content is DIRECTORY:
            place.mkdir()
        else:
            place.write_text(content)
    return root
