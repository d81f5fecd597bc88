"""How a function becomes a command: option groups, examples in `--help`, and one way to report errors.

This module knows typer and the errors, but no command.
"""

import inspect
import os
import traceback
from collections.abc import Callable, Sequence
from dataclasses import MISSING, fields, is_dataclass
from functools import wraps
from typing import Any, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup
from typer.exceptions import TyperException
from typer.models import ArgumentInfo

from spoton.cli.failures import USER_ERROR, describe
from spoton.cli.output import emit, stderr
from spoton.cli.signals import exit_code
from spoton.cli.terminal_text import printable
from spoton.errors import SpotonError

__all__ = ["USER_ERROR", "SpotonGroup", "command"]
DEBUG = "SPOTON_DEBUG"
"""Set to 1, or by the option `--debug`, tracebacks are printed."""


class SpotonGroup(TyperGroup):
    """The root of the command tree: the one place that turns every error into a message and an exit code.

    Each message ends in a short code, which docs/reference/errors.md explains. The exit code is 2 if the user can
    correct the error, 1 for a bug in spoton (with a report file), and 128 + n if signal n ended the run. With `--json`
    the message is also the JSON document on stdout, `{"error": ..., "kind": ..., "code": ...}`. With `--debug`, or the
    environment variable `SPOTON_DEBUG=1`, the traceback is printed as well.
    """

    def parse_args(
        self, ctx: Any, args: list[str]
    ) -> list[str]:  # the class that typer passes is private to it
        """Accepts `--debug` anywhere on the command line, and parses the rest like any group."""
        options = args[: args.index("--")] if "--" in args else args
        if "--debug" in options:
            os.environ[DEBUG] = "1"
            args = [arg for i, arg in enumerate(args) if arg != "--debug" or i >= len(options)]
        parsed: list[str] = super().parse_args(ctx, args)
        return parsed

    def make_context(self, info_name: str | None, args: list[str], *more: Any, **extra: Any) -> Any:
        """Reads the options before the command; turns errors in them into messages.

        Typer would end an interrupt of it without a word, and as Ctrl-C whatever it was.
        """
        as_json = _asks_for_json(args)  # before the parser takes the arguments away
        try:
            return super().make_context(info_name, args, *more, **extra)
        except TyperException as error:
            _report_usage(error, as_json=as_json)
            raise
        except KeyboardInterrupt as error:
            raise _interrupted(error, as_json=as_json) from error

    def invoke(self, ctx: Any) -> Any:
        """Runs the command; turns errors into messages and exit codes."""
        as_json = _asks_for_json(ctx.args)
        try:
            return super().invoke(ctx)
        except TyperException as error:
            _report_usage(error, as_json=as_json)
            raise
        except SpotonError as error:
            _report(str(error), type(error).__name__, error.code, as_json=as_json)
            raise typer.Exit(USER_ERROR) from error
        except KeyboardInterrupt as error:
            raise _interrupted(error, as_json=as_json) from error
        except (typer.Exit, typer.Abort, BrokenPipeError):
            raise
        except Exception as error:
            message, code = describe(error)
            short = "E-SYSTEM" if code == USER_ERROR else "E-FAULT"
            _report(message, type(error).__name__, short, as_json=as_json)
            raise typer.Exit(code) from error


class _Command(TyperCommand):
    """A command that refuses empty arguments, which unset variables of a shell are: an empty path is the current
    folder."""

    def parse_args(
        self, ctx: Any, args: list[str]
    ) -> list[str]:  # the class that typer passes is private to it
        """Reads the arguments; the texts of a list, such as those of `predict`, may be empty."""
        if not ctx.resilient_parsing:
            given = self.make_parser(ctx).parse_args(args=list(args))[0]
            parameters: list[Any] = self.get_params(ctx)  # of a class that is private, too
            for parameter in parameters:
                value = given.get(parameter.name)
                listed = parameter.param_type_name == "argument" and parameter.nargs == -1
                if not listed and "" in (value if isinstance(value, list | tuple) else [value]):
                    raise typer.BadParameter(
                        "it is empty. Give a value, or leave it out; a shell variable that is not set is empty.",
                        ctx=ctx, param_hint=parameter.metavar or max(parameter.opts, key=len),
                    )  # fmt: skip
        parsed: list[str] = super().parse_args(ctx, args)
        return parsed


def command(
    app: typer.Typer, *examples: str, name: str | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Registers a function as a command of `app`.

    Parameters whose type is a dataclass of options become one option per field, so a group of options is
    declared once, and every command that uses it has the same flags, defaults and help.

    Args:
        app: Where to register.
        examples: Command lines shown at the end of `--help`.
        name: The command's name. Default: the name of the function.
    """

    def register(function: Callable[..., None]) -> Callable[..., None]:
        lines = ["[bold]Examples[/bold]", *(f"$ {example}" for example in examples)]
        app.command(name, cls=_Command, epilog="\n\n".join(lines))(_flattened(function))
        return function

    return register


def _flattened(function: Callable[..., None]) -> Callable[..., None]:
    """Returns a function like the given one that takes the fields of its option groups as separate parameters."""
    hints = get_type_hints(function, include_extras=True)
    groups: dict[str, type] = {}
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(function).parameters.values():
        hint = hints[parameter.name]
        if is_dataclass(hint) and isinstance(hint, type):
            groups[parameter.name] = hint
            parameters += _fields_as_parameters(hint)
        else:
            _name_in_capitals(parameter.name, hint)
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hint))

    @wraps(function)
    def run(**values: Any) -> None:
        grouped = {
            name: group(**{field.name: values.pop(field.name) for field in fields(group)})
            for name, group in groups.items()
        }
        function(**values, **grouped)

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # functions have it (PEP 362)
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _name_in_capitals(name: str, hint: Any) -> None:
    """Has `--help` write an argument in capitals, as those that have a name of their own: `{FILE}`, not `{file}`."""
    for one in getattr(hint, "__metadata__", ()):
        if isinstance(one, ArgumentInfo) and one.metavar is None:
            one.metavar = name.upper()


def _fields_as_parameters(group: type) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if field.default is MISSING else field.default,
            annotation=hints[field.name],
        )
        for field in fields(group)
    ]


def _asks_for_json(args: Sequence[str]) -> bool:
    """Returns whether `--json` is among the options; what comes after `--` is not an option."""
    return "--json" in (args[: args.index("--")] if "--" in args else args)


def _report_usage(error: TyperException, *, as_json: bool) -> None:
    """Reports a wrong option or argument, which typer explains on stderr."""
    error.message = printable(error.message)
    if as_json:
        _emit_error(error.format_message(), "UsageError", "E-USAGE")


def _report(message: str, kind: str, code: str, *, as_json: bool) -> None:
    if os.environ.get(DEBUG) == "1":
        stderr().print(traceback.format_exc())
    stderr().print("Error:", style="bold red", end=" ")
    stderr().print(message, f"[{code}]", soft_wrap=True)
    if as_json:
        _emit_error(message, kind, code)


def _interrupted(error: KeyboardInterrupt, *, as_json: bool) -> typer.Exit:
    """Reports an interrupt, and returns the exit that follows it."""
    _report(str(error) or "Interrupted.", "Interrupted", "E-INTERRUPTED", as_json=as_json)
    return typer.Exit(exit_code())


def _emit_error(message: str, kind: str, code: str) -> None:
    emit({"error": message, "kind": kind, "code": code}, message, as_json=True)
