"""Find the mistakes in a command line of a parser of argparse, from its options."""

from __future__ import annotations

import argparse

from cifar_lightning.private import actions_of
from cifar_lightning.usage.command_parser import ArgumentParser
from cifar_lightning.usage.items import Given, given_options, joined, nearest, shown
from cifar_lightning.usage.names import ELSEWHERE
from cifar_lightning.usage.typehints import any_of, did_you_mean, expected

__all__ = ["problems_of"]


def problems_of(parser: ArgumentParser) -> str:
    """Return the mistakes in the line that a parser got, as one message; empty when its options do not show any."""
    return joined(line_problems(parser))


def line_problems(parser: ArgumentParser) -> list[str]:
    """Return the mistakes in the line that a parser got."""
    options = {option: action for action in actions_of(parser) for option in action.option_strings}
    waiting = [action for action in actions_of(parser) if not action.option_strings]
    problems: list[str] = []
    seen: list[argparse.Action | None] = [None]
    for item in given_options(parser.given, [option for option, action in options.items() if action.nargs == 0]):
        last = seen[-1]
        begins = [option for option in options if item.option and option.startswith(item.option)]
        if item.option:
            action = options.get(item.option) or (options[begins[0]] if len(begins) == 1 else None)
        else:
            action = last if last and last.nargs == "+" else waiting.pop(0) if waiting else None
        if action is not None:
            problems += value_problems(action, item)
        elif parser.knows_all:
            problems.append(unknown(parser, item))
        seen.append(action)
        if action is not None and isinstance(action.choices, dict) and item.value and item.value in action.choices:
            inner = action.choices[item.value]
            inner.given, inner.knows_all = parser.given[list(parser.given).index(item.value) + 1 :], parser.knows_all
            return problems + line_problems(inner)
    for action in actions_of(parser) if not problems else ():
        if action.required and action not in seen:
            name = f"`{action.option_strings[-1]} {action.metavar or 'VALUE'}`" if action.option_strings else ""
            words = action.help or f"one of {any_of(list(action.choices or ()))}"
            problems.append(f"Expected {name or action.metavar or action.dest}: {words}.")
    return problems


def value_problems(action: argparse.Action, item: Given) -> list[str]:
    """Return the mistakes in the value of an option, or of an argument without an option."""
    label = f"`{item.option}`" if item.option else str(action.metavar or action.dest)
    choices = [str(choice) for choice in action.choices or ()]
    words = f"one of {any_of(choices)}" if choices else expected(action.type or str)
    if action.nargs == 0:
        return [f"Expected no value for {label}, got {shown(item.value)}."] if item.value is not None else []
    if item.value is None:
        return [f"Expected a value after {label}: {action.help or words}."]
    if choices and item.value not in choices:
        return [f"Expected {label} to be {words}, got {shown(item.value)}.{did_you_mean(item.value, choices)}"]
    try:
        action.type(item.value) if callable(action.type) else None
    except (TypeError, ValueError, argparse.ArgumentTypeError) as error:
        has_text = isinstance(error, argparse.ArgumentTypeError)
        return [f"{label}: {error}." if has_text else f"Expected {label} to be {words}, got {shown(item.value)}."]
    return []


def unknown(parser: ArgumentParser, item: Given) -> str:
    """Return the message for an item of the line that the parser does not know, with the nearest option."""
    if not item.option:
        required = next((action.option_strings[-1] for action in actions_of(parser) if action.required), "")
        question = f" Did you mean `{required} {item.value}`?" if required else ""
        return f"Expected options, which begin with --, got {shown(item.value)}.{question}"
    name = item.option.lstrip("-")
    near = nearest(name, [option.lstrip("-") for action in actions_of(parser) for option in action.option_strings])
    if near:
        advice = f"Did you mean {any_of([f'`--{option}`' for option in near])}?"
    elif name in ELSEWHERE:
        advice = f"It belongs to {ELSEWHERE[name]}."
    else:
        advice = f"`{parser.prog} --help` lists all."
    return f"There is no option `{item.option}` in `{parser.prog}`. {advice}"
