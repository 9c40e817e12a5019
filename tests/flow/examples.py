"""The examples of the documentation: its commands, those that another test runs, and those that none can run."""

import re

import yaml

from tests.paths import ROOT

BLOCK = re.compile(r"^ *```(\w*)(?: title=\"(.*?)\")?\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
PROGRAMS = (
    "edgeproof make python pip docker git gdown torchrun srun model_signing wandb tensorboard eval umask mkdir cd echo"
)
COMMAND = re.compile(rf"(\w+=\S+ )?(\.venv/bin/)?({'|'.join(PROGRAMS.split())})( |$)")
PAGES = {
    str(path.relative_to(ROOT)): BLOCK.findall(path.read_text())
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
}

ELSEWHERE = {
    "docs/how-to/imagenet-model.md": "tests/flow/test_how_tos.py",
    "docs/how-to/own-pictures.md": "tests/flow/test_how_tos.py",
    "docs/notebooks/quickstart.md": "tests/api/test_notebook.py",
    "docs/reference/python.md": "tests/api/test_the_page.py",
    "docs/tutorial.md": "tests/flow/test_readme.py",
    "README.md sh": "tests/flow/test_readme.py",
    "README.md python": "tests/api/test_the_page.py",
}
"""Pages, or their blocks of one language, that another test runs."""
NOT_RUN = {
    r"make (?!docker).*": "needs a checkout with an environment of its own: tests/flow/test_readme.py, test_cifar10.py",
    r"(pip install|git clone|gdown|mkdir -p models|wandb login).*": "needs the network",
    r"edgeproof (push|verify) .*hf://.*": "needs the Hugging Face Hub: tests/runtime/hub has a server of its own",
    r".*(log\.mlflow=http|tensorboard ).*": "needs a server, or is one: tests/pipeline/tracking",
    r"(docker|make docker-).*": "needs Docker: make smoke builds and runs the images",
    r"edgeproof .*tensorrt.*": "needs a GPU",
    r"((torchrun|srun) .*)?edgeproof .*(--devices|--ray).*": "needs several GPUs, or a cluster",
    r"edgeproof study .*": "trains for hours: tests/pipeline/study",
    r"edgeproof (distill|teach) cifar10.*": "needs a GPU for hours; that its recipe is one is tested here",
    r"edgeproof .*cifar10-?.*": "needs a run of CIFAR-10: tests/flow/test_cifar10.py",
    r"edgeproof distill benchmarks/retention/.*": "needs CIFAR-10-JPEG: tests/architecture/test_retention.py",
    r"(OMP_NUM_THREADS=1 )?python -m (benchmarks|tests)\..*": "measures for hours",
    r"model_signing .*": "needs an environment of its own: tests/runtime/bundle/test_openssf.py",
}
"""Commands that no test of a page runs, with the reason."""


def elsewhere(page, language):
    """Tell whether another test runs a page's blocks of a language."""
    return page in ELSEWHERE or f"{page} {language}" in ELSEWHERE


def steps_of(workflow):
    """Yield the commands of a workflow's steps."""
    for job in (workflow.get("jobs") or {}).values() if isinstance(workflow, dict) else ():
        for step in job["steps"]:
            yield from step.get("run", "").splitlines()


def commands(page):
    """Return the commands of a page in order, each as one line."""
    lines = []
    for language, _, body in PAGES[page]:
        if elsewhere(page, language):
            continue
        if language == "yaml":
            lines += steps_of(yaml.safe_load(body))
        elif language in ("sh", "bash", "text"):
            lines += re.sub(r" *\\\n *", " ", body).splitlines()
    return [line.strip() for line in lines if COMMAND.match(line.strip())]


def reasons(command):
    """Return why no test of a page runs a command."""
    return [reason for pattern, reason in NOT_RUN.items() if re.fullmatch(pattern, command)]
