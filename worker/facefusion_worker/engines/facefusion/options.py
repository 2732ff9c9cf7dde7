"""The program's own arguments as the service's options, and a job's parameters as the program's arguments.

What a caller may set is exactly what the installed program's parser knows, less the operator's part; each value that comes out is one that
the program's command line would have taken.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Mapping, Sequence
from typing import Any

from ...engine import DependentChoices, EngineError, Option, OptionType, Processor
from .program import OPERATOR_OPTIONS, Program

# A row of numbers this long is a range; a shorter one is a choice.
_RANGE = 8
_MINIMUM = {
    "trim_frame_start": 0,
    "trim_frame_end": 0,
    "reference_frame_number": 0,
    "reference_face_position": 0,
    "output_video_fps": 1,
    "output_audio_fps": 1,
}
# Chosen by this engine unless the job says otherwise: the program's default does not fit every container.
_OWN_DEFAULTS = frozenset({"output_audio_encoder"})


class Options:
    def __init__(self, program: Program) -> None:
        self._program = program
        modules = next((action for name, action in program.actions.items() if name == "processors"), None)
        names = [str(name) for name in modules.choices or ()] if modules else []
        self.processors = tuple(_processor(name) for name in names)
        # A choice that depends on another option: the deciding option, its table, and which entry is the default.
        self._tables: dict[str, tuple[str, Mapping[str, Sequence[str]], int]] = {
            "face_detector_size": ("face_detector_model", program.module("choices").face_detector_set, -1),
            "face_swapper_pixel_boost": (
                "face_swapper_model",
                program.module("processors.modules.face_swapper.choices").face_swapper_set,
                0,
            ),
        }
        self.options = tuple(self._option(action, names) for name, action in program.actions.items() if name not in OPERATOR_OPTIONS)
        self._by_name = {option.name: option for option in self.options}

    def _option(self, action: argparse.Action, processors: Sequence[str]) -> Option:
        name, choices, minimum, maximum = action.dest, (), _MINIMUM.get(action.dest), None
        kind, numbers = _kind(action)
        if name in self._tables:
            choices = tuple(dict.fromkeys(size for sizes in self._tables[name][1].values() for size in sizes))
        elif numbers and (len(numbers) > _RANGE or isinstance(action.type, functools.partial)):
            minimum, maximum = min(numbers), max(numbers)
        elif action.choices is not None:
            choices = tuple(str(choice) for choice in action.choices)
        limit = self._program.settings.limits.get(name)
        if limit is not None and name != "processors":
            maximum = min(limit, maximum) if maximum is not None else limit
        return Option(
            name=name,
            type=kind,
            help=action.help or "",
            list=action.nargs == "+",
            choices=choices,
            minimum=minimum,
            maximum=maximum,
            default=None if name in _OWN_DEFAULTS else action.default,
            processor=next((processor for processor in processors if name.startswith(processor + "_")), ""),
            dependent_choices=self._dependents(name),
        )

    def _dependents(self, name: str) -> tuple[DependentChoices, ...]:
        if name not in self._tables:
            return ()
        decider, table, _ = self._tables[name]
        return tuple(DependentChoices(decider, value, tuple(sizes)) for value, sizes in table.items())

    def resolve(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """The program's arguments for these parameters. The service has checked them before; a caller without one is told here."""
        arguments = self._program.defaults() | dict.fromkeys(_OWN_DEFAULTS)
        for name, given in parameters.items():
            option = self._by_name.get(name)
            if option is None:
                raise EngineError("OPTION_INVALID", f"There is no option {name}.")
            if given is not None:
                arguments[name] = self._value(option, given)
        for name, (decider, table, default) in self._tables.items():
            sizes = table[arguments[decider]]
            if parameters.get(name) is None:
                arguments[name] = sizes[default]
            elif arguments[name] not in sizes:
                allowed = ", ".join(sizes)
                raise EngineError(
                    "OPTION_INVALID", f"{name} cannot be {arguments[name]} with {decider} {arguments[decider]}; it can be: {allowed}."
                )
        self._complete_ages(arguments)
        most = int(self._program.settings.limits.get("processors", len(self.processors)))
        if len(arguments["processors"]) > most:
            raise EngineError("OPTION_INVALID", f"A job may have at most {most} processors.")
        return arguments

    @staticmethod
    def _complete_ages(arguments: dict[str, Any]) -> None:
        """The program takes both ends of the range of ages, or neither."""
        start, end = arguments.get("face_selector_age_start"), arguments.get("face_selector_age_end")
        if (start is None) != (end is None):
            arguments["face_selector_age_start"] = 0 if start is None else start
            arguments["face_selector_age_end"] = 100 if end is None else end

    def _value(self, option: Option, given: Any) -> Any:
        if not option.list:
            return self._single(option, given)
        values = list(given) if isinstance(given, list | tuple) else [given]
        if not values:
            raise EngineError("OPTION_INVALID", f"{option.name} cannot be an empty list.")
        return [self._single(option, value) for value in values]

    def _single(self, option: Option, given: Any) -> Any:
        value: Any = None
        try:
            if option.type == OptionType.OPTION_TYPE_STRING:
                value, fits = given, isinstance(given, str)
            elif option.type == OptionType.OPTION_TYPE_BOOLEAN:
                value, fits = given, isinstance(given, bool)
            else:
                value = float(given)
                fits = not isinstance(given, bool)
                if option.type == OptionType.OPTION_TYPE_INTEGER:
                    fits, value = fits and value.is_integer(), int(value)
                fits = fits and (option.minimum is None or value >= option.minimum) and (option.maximum is None or value <= option.maximum)
            fits = fits and (not option.choices or str(value) in option.choices)
        except (TypeError, ValueError, OverflowError):
            fits = False
        if not fits:
            raise EngineError("OPTION_INVALID", f"{option.name} cannot be {str(given)[:60]!r}.")
        numbers = _kind(self._program.actions[option.name])[1]
        # The program's ranges are rows of steps; between two of them there is nothing.
        return min(numbers, key=lambda number: abs(number - value)) if numbers else value


def _kind(action: argparse.Action) -> tuple[OptionType, list[float]]:
    """The type, and the numbers that are allowed if those are listed."""
    numbers = [choice for choice in action.choices or () if isinstance(choice, int | float)]
    if isinstance(action.type, functools.partial):  # `sanitize_int_range`
        return OptionType.OPTION_TYPE_INTEGER, list(action.type.keywords.get("int_range", ()))
    if isinstance(action.default, bool) or action.nargs == 0:
        return OptionType.OPTION_TYPE_BOOLEAN, []
    if action.type is int:
        return OptionType.OPTION_TYPE_INTEGER, numbers
    if action.type is float:
        return OptionType.OPTION_TYPE_NUMBER, numbers
    return OptionType.OPTION_TYPE_STRING, []


_DESCRIPTIONS = {
    "age_modifier": "makes faces younger or older",
    "background_remover": "cuts out what is in front",
    "deep_swapper": "puts the face that a model was trained on over faces of the target",
    "expression_restorer": "gives processed faces the target's expression back",
    "face_debugger": "draws what was found: boxes, landmarks, masks",
    "face_editor": "moves eyes, mouth and head of faces",
    "face_enhancer": "restores faces",
    "face_swapper": "puts the face of the source pictures over faces of the target",
    "frame_colorizer": "colours pictures",
    "frame_enhancer": "adds detail to the whole picture",
    "lip_syncer": "moves lips to the source audio",
}


def _processor(name: str) -> Processor:
    return Processor(name, _DESCRIPTIONS.get(name, ""), needs_source_image=name == "face_swapper", needs_source_audio=name == "lip_syncer")
