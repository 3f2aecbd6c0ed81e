//! The help of every command, as it was last agreed on.
//!
//! A change of a flag or a text changes a file below `help/`. Look at the difference, then accept it with
//! `INSTA_UPDATE=always cargo test --test it cli::help`. The flags of settings are left out: `config.rs`
//! has their list.

use clap::Command;

#[test]
fn the_help_of_every_command_is_as_agreed() {
    let mut root = without_settings(postrider::cli::command());
    root.build();
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("help");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| check(&mut root, "postrider"));
}

fn check(command: &mut Command, name: &str) {
    insta::assert_snapshot!(name, command.render_long_help().to_string());
    for below in command.get_subcommands_mut().filter(|below| below.get_name() != "help") {
        let name = format!("{name}-{}", below.get_name());
        check(below, &name);
    }
}

/// A value in the environment of the test is no part of the help.
fn without_settings(command: Command) -> Command {
    command
        .mut_args(|argument| {
            let is_hidden = argument.get_env().is_some() && postrider::cli::is_setting(argument.get_id().as_str());
            argument.hide(is_hidden).hide_env_values(true)
        })
        .mut_subcommands(without_settings)
}
