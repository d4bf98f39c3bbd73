"""References to the hub (`owner/name[:config][:split=SPLIT][@revision]`), and what its libraries raise as our errors."""

from __future__ import annotations

import re
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from workings.errors import BadInput, Failed, first_line
from workings.packing import PACKINGS

_REFERENCE = re.compile(
    r"(?P<name>[\w.-]+(/[\w.-]+)?)(:(config=)?(?P<config>[\w.-]+))?(:split=(?P<split>[\w.-]+))?(@(?P<revision>[\w./-]+))?"
)
_POINTER = b"version https://git-lfs.github.com/spec/"
_FILE_ENDINGS = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet", ".arrow", ".txt", ".md", *PACKINGS)


@dataclass(frozen=True)
class HubReference:
    """A repository on the hub: its id, a revision (a tag, branch or commit), and of a data set the config and the split."""

    name: str
    config: str | None = None
    revision: str | None = None
    split: str | None = None

    def __str__(self) -> str:
        parts = ((":", self.config), (":split=", self.split), ("@", self.revision))
        return self.name + "".join(mark + part for mark, part in parts if part)

    @classmethod
    def parse(cls, text: str) -> HubReference | None:
        """The reference that `text` spells; None where it cannot be one, as with a path or the name of a data file.

        Example:
            >>> HubReference.parse("openai/gsm8k:main:split=test@e53f048")
            HubReference(name='openai/gsm8k', config='main', revision='e53f048', split='test')
        """
        found = _REFERENCE.fullmatch(text)
        if found is None or text.endswith(_FILE_ENDINGS):
            return None
        return cls(found["name"], found["config"], found["revision"], found["split"])


@contextmanager
def hub_errors(reference: str, unusable: tuple[type[Exception], ...] = ()) -> Generator[None]:
    """Inside, what the hub's libraries raise about `reference` becomes BadInput or Failed, in one plain sentence.

    Args:
        reference: What the user named.
        unusable: What else a library raises where the hub has nothing it can use under that name. (`datasets` raises
            errors of many libraries for an unknown config or split.)

    Raises:
        BadInput: The user can mend it: a name, a revision, a login, being offline.
        Failed: The hub refuses.
    """
    from huggingface_hub import errors as hub

    try:
        yield
    except (hub.OfflineModeIsEnabled, hub.LocalEntryNotFoundError, ConnectionError) as error:
        raise BadInput(
            f"'{reference}' is not a local path, and the hub cannot be reached: HF_HUB_OFFLINE is set or there is no network, "
            "and the local cache does not hold it. Check the spelling, or give a local path."
        ) from error
    except hub.LocalTokenNotFoundError as error:
        raise BadInput("you are not logged in to the hub: run 'hf auth login', or set HF_TOKEN") from error
    except hub.HFValidationError as error:
        raise BadInput(
            f"'{reference}' is no local path, and no repository of the hub can have that name: write owner/name, of letters, "
            "digits, -, _ and ."
        ) from error
    except (hub.RepositoryNotFoundError, hub.RevisionNotFoundError) as error:
        raise BadInput(
            f"'{reference}' is not a local path, and the hub has nothing of that name that you may use: "
            f"{first_line(error)}. Check the spelling and the revision."
        ) from error
    except hub.HfHubHTTPError as error:
        raise Failed(f"the hub refused '{reference}': {first_line(error)}") from error
    except unusable as error:
        raise BadInput(
            f"'{reference}' is not a local path, and the hub has nothing usable of that name: {first_line(error)}. "
            "Check the spelling, or give a local path."
        ) from error


def why_unloadable(error: BaseException) -> str:
    """Why transformers could not load something, in its words but without its advice to run code that lies beside it."""
    said = str(error)
    if "trust_remote_code" in said:
        return "it needs code of its own (auto_map), which is not run; take a model that transformers has itself"
    if "weights_only" in said:
        return "it holds more than tensors, which could run code; save it as .safetensors"
    if "backend tokenizer" in said:
        return "it has neither tokenizer.json nor tokenizer.model"
    if "does not recognize this architecture" in said:
        return "this version of transformers has no such model_type"
    if "CONVERSION" in said:
        return "tensors that belong together, as those of experts do, are missing or do not fit"
    return first_line(error)


def refuse_pointers(place: Path) -> None:
    """Raise BadInput if a file, or a file in a folder, is what Git LFS leaves in the place of a large one."""
    for file in sorted(place.iterdir()) if place.is_dir() else [place]:
        if file.is_file() and file.stat().st_size < 1024 and file.read_bytes().startswith(_POINTER):
            raise BadInput(
                f"{file} is a Git LFS pointer, not the file itself: run 'git lfs pull' there, or download it again"
            )
