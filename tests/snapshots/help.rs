//! Every help text.

use crate::case::{Case, check};

#[test]
fn each_command_has_its_help_text() {
    let case = Case::empty();
    for command in [
        "",
        "run",
        "collect",
        "plan",
        "build",
        "checkpoint-status",
        "gc",
        "validate",
        "init",
        "logs",
        "history",
        "history show",
        "history merge",
        "history setup-merge-driver",
    ] {
        let words: Vec<&str> = ["help"].into_iter().chain(command.split_whitespace()).collect();
        let name = words.join("-");
        check(&format!("help/{name}"), &case.run(&words));
    }
}

#[test]
fn a_command_line_without_a_command_is_a_usage_error_that_shows_the_commands() {
    check("help/none", &Case::empty().run(&[]));
}

#[test]
fn the_version_is_one_line() {
    check("help/version", &Case::empty().run(&["--version"]));
}
