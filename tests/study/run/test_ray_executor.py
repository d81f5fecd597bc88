"""What goes to a Ray cluster: no secrets. How cells run on one is in `test_scheduler.py`."""

from __future__ import annotations

from spoton.study.run.ray_executor import passed_on


def test_tokens_and_whatever_else_is_secret_stay_here() -> None:
    environment = {
        "HF_TOKEN": "hf_secret", "HUGGING_FACE_HUB_TOKEN": "hf_secret", "HF_HUB_TOKEN": "x", "SPOTON_SECRET": "x",
        "AWS_SECRET_ACCESS_KEY": "x", "HF_HOME": "/models", "SPOTON_DATA_DIR": "/rows", "HF_HUB_OFFLINE": "1",
    }  # fmt: skip
    assert passed_on(environment) == {
        "HF_HOME": "/models", "SPOTON_DATA_DIR": "/rows", "HF_HUB_OFFLINE": "1",
    }  # fmt: skip
