# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown] lang="en"
# # 1. What starts when it starts?
#
# Somebody asks for a container, somebody else for a virtual machine. Some time later a program runs in both. **What happened in between?**
#
# | | |
# |---|---|
# | **Time** | 45 minutes: 5 predict, 10 run, 15 investigate, 10 modify, 5 make |
# | **Questions** | What does a container's start consist of, and what a VM's? Why does one take milliseconds? What happens if sixteen start at once? |
# | **You will be able to** | name the steps of both; read an ECDF; tell a measurement from an emulation; predict contention from a single start |
# | **You need** | Python, and onggi with `pip install -e '.[lessons]'`. No Docker, no root: the measurements are recorded. With root on Linux you can repeat them. |

# %% [markdown] lang="ko"
# # 1. 시작할 때 무엇이 시작되나?
#
# 한 사람은 컨테이너를, 다른 사람은 가상 머신을 시작하라고 합니다. 얼마 뒤 두 곳 모두에서 프로그램이 돕니다. **그 사이에 무슨 일이 있었을까요?**
#
# | | |
# |---|---|
# | **시간** | 45분: 예측 5, 실행 10, 탐구 15, 변경 10, 제작 5 |
# | **질문** | 컨테이너의 시작은 무엇으로 이루어지고, VM의 시작은 무엇으로 이루어지나? 왜 한쪽은 몇 밀리초면 되나? 열여섯 개가 한꺼번에 시작하면? |
# | **할 수 있게 되는 것** | 두 시작의 단계를 말하기, ECDF 읽기, 측정과 에뮬레이션을 구별하기, 시작 한 번에서 경합을 예측하기 |
# | **준비물** | Python과 onggi (`pip install -e '.[lessons]'`). Docker도 root도 필요 없습니다. 측정값은 기록되어 있고, Linux에서 root라면 다시 잴 수 있습니다. |

# %% lang="en"
LANGUAGE = "en"

# %% lang="ko"
LANGUAGE = "ko"

# %%
# %matplotlib inline
import numpy as np

from classroom.lessons.check import check_number
from simulator.evidence.measurements import Subject, read_measurements

measurements = read_measurements("reference")  # after `sudo onggi measure`: the name of your own machine
container = measurements.startup[Subject("container", "default")]
guest = measurements.startup[Subject("vm-tcg", "microvm")]

# %% [markdown] lang="en"
# ## Predict
#
# Before you look: how many milliseconds from *"start it"* to *"its program runs"*? Write down your guess. A wrong guess is worth more here than none.

# %% [markdown] lang="ko"
# ## 예측
#
# 보기 전에 생각해 봅시다. *"시작해"* 에서 *"프로그램이 돈다"* 까지 몇 밀리초가 걸릴까요? 짐작을 적어 두세요. 여기서는 틀린 짐작이 빈칸보다 값집니다.

# %%
my_guess_milliseconds = {"container": 100, "virtual machine": 1000}

# %% [markdown] lang="en"
# ## Run
#
# Each mark is one start that was really measured; nothing is averaged away. An **ECDF** says for each time on the x axis which share of the starts was done by then. The time axis is logarithmic: each grid step is ten times the one before.

# %% [markdown] lang="ko"
# ## 실행
#
# 점 하나가 실제로 잰 시작 한 번이고, 평균으로 지운 것은 없습니다. **ECDF**(경험적 누적 분포)는 x축의 각 시각까지 몇 퍼센트의 시작이 끝났는지 보여 줍니다. 시간 축은 로그입니다. 한 칸마다 열 배입니다.

# %%
from simulator.datacenter.platforms import PlatformProfile
from simulator.evidence.calibration import calibrate_all
from simulator.plotting import plot_startup_ecdf

profiles = calibrate_all(measurements) | {"vm-kvm": PlatformProfile.from_toml("vm-kvm")}
ax = plot_startup_ecdf(measurements, profiles, language=LANGUAGE)

# %%
for name, seconds in (
    ("container", container.total),
    ("virtual machine", np.array([profiles["vm-kvm"].startup.total_seconds.value])),
):
    median = 1000 * float(np.median(seconds))
    print(f"{name}: {median:.1f} ms; your guess was {my_guess_milliseconds[name] / median:.1f} times that")

# %% [markdown] lang="en"
# ### Emulation is not virtualisation
#
# `vm-tcg` is a guest whose processor is **emulated**: QEMU translates every instruction of it into instructions of the host. It was measured, and it is slow. With hardware virtualisation (**KVM**) the guest's instructions run on the real processor; the published figure for such a guest stands in the plot as a range, drawn differently because it comes from another machine and another laboratory.
#
# So do not say *"a VM takes as long as `vm-tcg`"*. The emulated guest goes through **the same steps** as a real one, and for the steps it is useful here.

# %% [markdown] lang="ko"
# ### 에뮬레이션은 가상화가 아니다
#
# `vm-tcg`는 프로세서를 **에뮬레이션**한 게스트입니다. QEMU가 명령어 하나하나를 호스트의 명령어로 번역합니다. 실제로 잰 값이고, 느립니다. 하드웨어 가상화(**KVM**)에서는 게스트의 명령어가 진짜 프로세서에서 돕니다. 그런 게스트의 문헌 값은 그림에 구간으로 서 있고, 다른 기계와 다른 연구실에서 나온 것이어서 다르게 그렸습니다.
#
# 그러니 *"VM은 `vm-tcg`만큼 걸린다"* 고 말하면 안 됩니다. 에뮬레이션된 게스트도 진짜와 **같은 단계**를 거치고, 여기서는 그 단계를 보는 데 씁니다.

# %% [markdown] lang="en"
# ## Investigate
#
# What is that time made of? Filled: somebody works on a core. Empty: everybody waits.

# %% [markdown] lang="ko"
# ## 탐구
#
# 그 시간은 무엇으로 이루어져 있을까요? 칠해진 부분은 누군가 코어에서 일하는 시간, 빈 부분은 모두가 기다리는 시간입니다.

# %%
from simulator.plotting import plot_startup_phases

ax = plot_startup_phases(profiles["container"], language=LANGUAGE)

# %%
ax = plot_startup_phases(profiles["vm-tcg"], language=LANGUAGE)

# %%
for name, samples in (("container", container), ("vm-tcg", guest)):
    for phase in samples.phases:
        print(f"{name:10} {phase:14} {1000 * np.median(samples.wall[phase]):9.2f} ms")

# %% [markdown] lang="en"
# A container's start makes **no kernel**: the host's is there already. It asks that kernel for new namespaces, mounts, limits, and executes a program. A VM's start makes a **machine**, and a kernel that finds its devices, its memory and its first program in it.
#
# On Linux as root you can watch it happen, call by call. (Elsewhere this cell says why it cannot.)

# %% [markdown] lang="ko"
# 컨테이너의 시작은 **커널을 만들지 않습니다**. 호스트의 커널이 이미 있습니다. 그 커널에 새 네임스페이스와 마운트, 제한을 부탁하고 프로그램을 실행할 뿐입니다. VM의 시작은 **기계**를 만들고, 그 안에서 커널이 장치와 메모리와 첫 프로그램을 찾아냅니다.
#
# Linux에서 root라면 호출 하나하나를 볼 수 있습니다. (다른 곳에서는 왜 안 되는지 이 셀이 말해 줍니다.)

# %%
import subprocess
import sys

watched = subprocess.run(
    [sys.executable, "-m", "classroom.cli", "engine", "run", "--explain", "busybox", "echo", "hello"],
    capture_output=True,
    text=True,
)
print(watched.stdout + watched.stderr)

# %% [markdown] lang="en"
# **Task 1.** Which share of the container's median start-up do its phases spend **on a core**? Use the medians: CPU seconds of all phases over wall-clock seconds of all phases.
#
# <details><summary>Hint</summary>
#
# `container.cpu` and `container.wall` map each phase to its samples. `np.median` of each, then add them up.
# </details>

# %% [markdown] lang="ko"
# **과제 1.** 컨테이너 시작의 중앙값 가운데 얼마만큼을 **코어에서** 쓰나요? 중앙값으로 계산하세요. 모든 단계의 CPU 초를 모든 단계의 실제 초로 나눕니다.
#
# <details><summary>힌트</summary>
#
# `container.cpu`와 `container.wall`에는 단계마다 표본이 들어 있습니다. 각각 `np.median`을 구해 더하세요.
# </details>

# %%
share_on_a_core = None  # your answer

# %% solution=true
share_on_a_core = sum(np.median(container.cpu[phase]) for phase in container.phases) / sum(
    np.median(container.wall[phase]) for phase in container.phases
)

# %%
check_number(
    "1",
    share_on_a_core,
    sum(float(np.median(s)) for s in container.cpu.values())
    / sum(float(np.median(s)) for s in container.wall.values()),
    hint="sum(np.median(container.cpu[phase]) for phase in container.phases) / …",
    language=LANGUAGE,
)

# %% [markdown] lang="en"
# ## Modify
#
# Sixteen people ask at the same moment. The model knows the phases of **one** start, how many cores there are, and how much busy cores slow each other down. From that it *predicts* the rest; the marks are what was measured, and nothing at two or more was used to make the lines.

# %% [markdown] lang="ko"
# ## 변경
#
# 열여섯 사람이 같은 순간에 부탁합니다. 모델이 아는 것은 **한 번**의 시작이 거치는 단계, 코어의 수, 바쁜 코어들이 서로를 얼마나 늦추는지뿐입니다. 나머지는 *예측*합니다. 점은 측정값이고, 둘 이상에서 잰 것은 선을 만드는 데 하나도 쓰지 않았습니다.

# %%
from simulator.evidence.validation import validate
from simulator.plotting import plot_contention

ax = plot_contention(validate(measurements), profiles, language=LANGUAGE)

# %%
from simulator.datacenter.startup import predict_contention
from simulator.evidence.calibration import fit_machine

machine = fit_machine(measurements)
for cores in (1, 2, 4, 8, 16):
    changed = machine.model_copy(update={"cores": cores})
    predicted = predict_contention(changed, profiles["container"], 16)
    print(f"{cores:2} cores: the last of 16 containers is ready after {1000 * predicted.max():6.1f} ms")

# %% [markdown] lang="en"
# **Task 2.** On the measured machine (`machine`), how many **seconds** until the last of **eight** emulated guests (`profiles["vm-tcg"]`) is ready, as predicted?

# %% [markdown] lang="ko"
# **과제 2.** 측정한 기계(`machine`)에서 에뮬레이션된 게스트(`profiles["vm-tcg"]`) **여덟** 대 가운데 마지막이 준비되기까지 몇 **초**가 걸린다고 예측되나요?

# %%
last_of_eight_seconds = None  # your answer

# %% solution=true
last_of_eight_seconds = float(predict_contention(machine, profiles["vm-tcg"], 8).max())

# %%
check_number(
    "2",
    last_of_eight_seconds,
    float(predict_contention(machine, profiles["vm-tcg"], 8).max()),
    hint="predict_contention(machine, profiles[…], 8).max()",
    language=LANGUAGE,
)

# %% [markdown] lang="en"
# ## Make
#
# A start-up that only waits (for a network address, for a disk) can overlap with others; one that works cannot. Make a platform of your own: take the container's profile, and give one of its phases half a second of waiting, as an address server would. Predict one and sixteen starts. Before you run it: will sixteen take sixteen times as long?

# %% [markdown] lang="ko"
# ## 제작
#
# 네트워크 주소나 디스크를 기다리기만 하는 시작은 다른 시작과 겹칠 수 있지만, 일하는 시작은 겹칠 수 없습니다. 나만의 플랫폼을 만들어 봅시다. 컨테이너의 프로필에서 한 단계가 주소 서버를 기다리듯 0.5초를 기다리게 하세요. 한 개와 열여섯 개의 시작을 예측합니다. 실행하기 전에 생각해 보세요. 열여섯 개는 열여섯 배가 걸릴까요?

# %%
waiting = profiles["container"].startup.phases[-1].model_copy(update={"fixed_seconds": 0.5})
mine = profiles["container"].model_copy(
    update={
        "startup": profiles["container"].startup.model_copy(
            update={"phases": (*profiles["container"].startup.phases[:-1], waiting)}
        )
    }
)
for concurrency in (1, 16):
    print(f"{concurrency:2} at once: {1000 * predict_contention(machine, mine, concurrency).max():.0f} ms")

# %% [markdown] lang="en"
# ## Key points
#
# - A container starts **a process with borders**; a VM starts **a machine with a kernel**.
# - Work contends for cores, waiting overlaps: the phases of one start predict the start of many.
# - A number has a kind. *Measured* here, *published* elsewhere, *simulated* by a model: never mix them unmarked. Emulated is not virtualised.
#
# <details><summary>For instructors</summary>
#
# Collect the guesses on the board before anybody runs a cell; most will be ten times too slow for the container. Typical misconceptions: *a container boots a small Linux* (show the phases: there is no kernel), *VMs are slow because they are big* (the published minimal guest under KVM needs a quarter of a second). With root, let one pair measure: `sudo onggi measure --quick`, then `read_measurements` with the name of that machine.
# </details>

# %% [markdown] lang="ko"
# ## 핵심
#
# - 컨테이너는 **경계가 있는 프로세스**를 시작하고, VM은 **커널이 있는 기계**를 시작합니다.
# - 일은 코어를 두고 다투고, 기다림은 겹칩니다. 시작 한 번의 단계에서 여러 시작을 예측할 수 있습니다.
# - 수에는 종류가 있습니다. 여기서 *측정*한 것, 다른 곳에서 *문헌*에 실린 것, 모델이 *시뮬레이션*한 것을 표시 없이 섞지 마세요. 에뮬레이션은 가상화가 아닙니다.
#
# <details><summary>가르치는 분께</summary>
#
# 셀을 실행하기 전에 짐작을 칠판에 모으세요. 컨테이너는 대부분 열 배쯤 느리게 짐작합니다. 흔한 오해: *컨테이너는 작은 Linux를 부팅한다*(단계를 보여 주세요. 커널이 없습니다), *VM은 커서 느리다*(KVM 위의 최소 게스트는 문헌에서 4분의 1초면 됩니다). root를 쓸 수 있다면 한 조가 직접 재게 하세요. `sudo onggi measure --quick` 다음에 그 컴퓨터의 이름으로 `read_measurements`를 부릅니다.
# </details>
