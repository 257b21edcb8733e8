use std::path::{Path, PathBuf};

use clap::CommandFactory as _;

use super::device::DeviceName;
use super::*;

fn parsed(words: &[&str]) -> Command {
    let words = ["embodied-r"].iter().chain(words);
    try_parse_from(words).unwrap_or_else(|error| panic!("{error}")).command
}

#[test]
fn the_command_line_is_consistent() {
    command().debug_assert();
}

/// The names of the commands below `command` that have an option, after `path`.
fn with_option(command: &clap::Command, option: &str, path: &str) -> Vec<String> {
    let own = command.get_arguments().any(|argument| argument.get_long() == Some(option));
    let below = command.get_subcommands().flat_map(|sub| {
        let path = format!("{path} {}", sub.get_name());
        with_option(sub, option, path.trim_start())
    });
    own.then(|| path.to_owned()).into_iter().chain(below).collect()
}

#[test]
fn the_page_about_cuda_names_the_commands_with_a_device() {
    let page = include_str!("../../../../docs/cuda.md");
    let rows = page.split("| commands | options |").nth(1).unwrap().lines().skip(2);
    let rows = rows.take_while(|row| row.starts_with('|'));
    // Only the words before an option name a command.
    let cells = rows.flat_map(|row| row.split('|').nth(1).unwrap().split('`').skip(1).step_by(2));
    let named: Vec<&str> = cells.map(|cell| cell.split(" --").next().unwrap_or_default()).collect();
    let mut commands = with_option(&command(), "device", "");
    // It only estimates.
    commands.retain(|command| command != "plan");
    let is_below = |command: &str, name: &str| {
        command == name || command.strip_prefix(name).is_some_and(|rest| rest.starts_with(' '))
    };
    for command in &commands {
        assert!(named.iter().any(|name| is_below(command, name)), "{command}");
    }
    for name in named {
        assert!(commands.iter().any(|command| is_below(command, name)), "{name}");
    }
}

#[test]
fn perceive_takes_the_official_spellings() {
    for [data, output, videos, captioner] in [
        ["--data", "--output", "--video-dir", "--captioner"],
        ["--data-paths", "--save-path", "--folder-path", "--model-path"],
        ["--data_paths", "--save_path", "--folder_path", "--model_path"],
    ] {
        let words =
            ["perceive", data, "a", "b", output, "out", videos, "videos", captioner, "model"];
        let Command::Perceive(args) = parsed(&words) else { panic!("{words:?}") };
        assert_eq!(args.data.data, [PathBuf::from("a"), PathBuf::from("b")]);
        assert_eq!(args.data.output, Path::new("out"));
        assert_eq!(args.video_dir.as_deref(), Some(Path::new("videos")));
        assert_eq!(args.model.captioner.as_deref(), Some("model"));
    }
    for [data, output] in [["--data", "--output"], ["--data-paths", "--save-path"]] {
        let words = ["perceive", "merge", data, "a", output, "out"];
        let Command::Perceive(args) = parsed(&words) else { panic!("{words:?}") };
        let Some(perceive::PerceiveCommand::Merge(args)) = args.command else { panic!() };
        assert_eq!((args.data.data, args.data.output), (vec!["a".into()], "out".into()));
    }
}

#[test]
fn the_captioner_has_an_old_name() {
    for flag in ["--captioner", "--perceiver"] {
        let Command::Ask(args) = parsed(&["ask", "a.mp4", "where?", flag, "vl"]) else { panic!() };
        assert_eq!(args.captioner.captioner.as_deref(), Some("vl"));
        let Command::Chat(args) = parsed(&["chat", "--model", "m", flag, "vl"]) else { panic!() };
        assert_eq!(args.captioner.captioner.as_deref(), Some("vl"));
        let Command::Perceive(args) = parsed(&["perceive", flag, "vl"]) else { panic!() };
        assert_eq!(args.model.captioner.as_deref(), Some("vl"));
        let eval = ["eval", "--model", "m", "--data", "d", flag, "vl"];
        let Command::Eval(args) = parsed(&eval) else { panic!() };
        assert_eq!(args.source.video.captioner.captioner.as_deref(), Some("vl"));
    }
}

#[test]
fn the_captioners_servers_have_an_old_name_where_no_other_model_is_on_a_server() {
    for flag in ["--captioner-base-url", "--base-url"] {
        let ask = ["ask", "a.mp4", "where?", "--captioner", "vl", flag, "u"];
        let Command::Ask(args) = parsed(&ask) else { panic!() };
        assert_eq!(args.captioner.captioner_base_url, ["u"]);
        let Command::Chat(args) = parsed(&["chat", "--model", "m", "--captioner", "vl", flag, "u"])
        else {
            panic!()
        };
        assert_eq!(args.captioner.captioner_base_url, ["u"]);
    }
}

#[test]
fn options_are_taken_as_users_of_python_type_them() {
    let ask = [
        "ask",
        "a.mp4",
        "where?",
        "--model",
        "m",
        "--captioner",
        "vl",
        "--captioner_base_url",
        "u",
    ];
    let Command::Ask(args) = parsed(&ask) else { panic!() };
    assert_eq!((args.policy.as_deref(), args.captioner.captioner_base_url.len()), (Some("m"), 1));
    let infer = ["infer", "--data", "q", "--output", "a", "--max_new_tokens", "7"];
    let Command::Infer(args) = parsed(&infer) else { panic!() };
    assert_eq!(args.reasoner.model.decoding.max_new_tokens, 7);
    // A negative number is a value, which is checked later, and no option.
    parsed(&["chat", "--model", "m", "--temperature", "-1"]);
    let error = try_parse_from(["embodied-r", "chat", "--model", "m", "--device", "gpu"]);
    let error = error.map(|_| String::new()).unwrap_or_else(|error| error.to_string());
    assert!(!error.contains("possible values"), "{error}");
}

#[test]
fn journals_have_the_sampling_parameters_that_replies_depend_on() {
    let names = |options: &[&str]| -> Vec<String> {
        let infer = ["infer", "--data", "q", "--output", "a"];
        let Command::Infer(args) = parsed(&[&infer[..], options].concat()) else { panic!() };
        let decoding = &args.reasoner.model.decoding;
        let params = decoding.sampling_params(None).unwrap();
        decoding.settings(&params).into_iter().map(|(name, _)| name).collect()
    };
    let greedy = ["temperature", "max_new_tokens", "system_prompt"];
    assert_eq!(names(&[]), greedy);
    // Of no consequence to greedy decoding.
    assert_eq!(names(&["--top-k", "5", "--min-p", "0.1", "--seed", "1"]), greedy);
    let penalized = [&greedy[..], &["repetition_penalty"]].concat();
    assert_eq!(names(&["--repetition-penalty", "1.5"]), penalized);
    let sampled = [&greedy[..], &["top_p", "top_k", "seed"]].concat();
    assert_eq!(names(&["--temperature", "1"]), sampled);
    let with_min_p = [&sampled[..], &["min_p"]].concat();
    assert_eq!(names(&["--temperature", "1", "--min-p", "0.1"]), with_min_p);
}

#[test]
fn settings_are_flags_and_the_last_one_counts() {
    let words = [
        "train",
        "--beta",
        "0.1",
        "--beta=0.2",
        "--use_peft",
        "--max-steps",
        "-1",
        "--report_to",
        "a",
        "b",
    ];
    let Command::Train(args) = parsed(&words) else { panic!() };
    let mut flags = args.run.setting_flags;
    flags.sort();
    let expected = [
        ("beta", vec!["0.2"]),
        ("max_steps", vec!["-1"]),
        ("report_to", vec!["a", "b"]),
        ("use_peft", vec!["true"]),
    ];
    let expected = expected.map(|(name, values)| {
        (name.to_owned(), values.into_iter().map(str::to_owned).collect::<Vec<_>>())
    });
    assert_eq!(flags, expected);
}

#[test]
fn data_and_output_have_old_names() {
    for flag in ["--data", "--input"] {
        let Command::Preprocess(args) = parsed(&["preprocess", flag, "raw"]) else { panic!() };
        assert_eq!(args.data, Path::new("raw"));
        let Command::Infer(args) = parsed(&["infer", flag, "q", "--output", "a"]) else { panic!() };
        assert_eq!(args.data, [Path::new("q")]);
        let Command::Inspect(args) = parsed(&["inspect", "logprobs", "--model", "m", flag, "ids"])
        else {
            panic!()
        };
        let inspect::InspectCommand::Logprobs(args) = args.command else { panic!() };
        assert_eq!(args.data, Path::new("ids"));
    }
    for flag in ["--data", "--batch"] {
        let Command::Inspect(args) = parsed(&["inspect", "loss", "--model", "m", flag, "batch"])
        else {
            panic!()
        };
        let inspect::InspectCommand::Loss(args) = args.command else { panic!() };
        assert_eq!(args.data, Path::new("batch"));
    }
    for flag in ["--output", "--out"] {
        let Command::Filter(args) = parsed(&["filter", "--data", "d", "--model", "m", flag, "o"])
        else {
            panic!()
        };
        assert_eq!(args.output, Path::new("o"));
        let Command::Report(args) = parsed(&["report", "--run", "r", flag, "o"]) else { panic!() };
        assert_eq!(args.output.as_deref(), Some(Path::new("o")));
        let Command::Quickstart(args) = parsed(&["quickstart", flag, "o"]) else { panic!() };
        assert_eq!(args.output, Path::new("o"));
        let output = |words: &[&str]| {
            let Command::Sim(args) = parsed(&[words, &[flag, "o"]].concat()) else { panic!() };
            match args.command {
                sim::SimCommand::Rooms(args) => args.output,
                sim::SimCommand::Views(args) => args.output,
                sim::SimCommand::Arm(args) => args.output,
                sim::SimCommand::Conversations(args) => args.output,
                sim::SimCommand::Corpus(_) | sim::SimCommand::Pretrain(_) => panic!(),
            }
        };
        assert_eq!(output(&["sim", "rooms"]), Path::new("o"));
        assert_eq!(output(&["sim", "views"]), Path::new("o"));
        assert_eq!(output(&["sim", "arm"]), Path::new("o"));
        assert_eq!(output(&["sim", "conversations", "--data", "d"]), Path::new("o"));
    }
    for [output, videos] in [
        ["--output", "--video-dir"],
        ["--save-path", "--folder-path"],
        ["--save_path", "--folder_path"],
    ] {
        let eval = ["eval", "--model", "m", "--data", "d", output, "o", videos, "v"];
        let Command::Eval(args) = parsed(&eval) else { panic!() };
        assert_eq!(args.output.as_deref(), Some(Path::new("o")));
        assert_eq!(args.source.video.video_dir.as_deref(), Some(Path::new("v")));
    }
}

#[test]
fn the_quickstart_from_pixels_has_defaults_of_its_own() {
    let defaults = |words: &[&str]| {
        let Command::Quickstart(args) = parsed(words) else { panic!() };
        (args.rooms, args.output)
    };
    assert_eq!(defaults(&["quickstart"]), (220, "results/quickstart".into()));
    let vision = defaults(&["quickstart", "--vision"]);
    assert_eq!(vision, (1800, "results/quickstart-vision".into()));
    assert_eq!(defaults(&["quickstart", "--vision", "--rooms", "9"]).0, 9);
}

#[test]
fn claims_of_the_quickstart_are_about_its_default_settings() {
    let has_default_settings = |words: &[&str]| {
        let words = [&["quickstart", "--strict"], words].concat();
        let Command::Quickstart(args) = parsed(&words) else { panic!() };
        args.has_default_settings().unwrap()
    };
    for default in [
        &[][..],
        &["--vision"],
        &["--robot"],
        &["--seed", "7", "--full"],
        &["--rooms", "220", "--precision", "bf16"],
        &["--vision", "--rooms", "1800"],
    ] {
        assert!(has_default_settings(default), "{default:?}");
    }
    for changed in
        [["--rooms", "1800"], ["--examples", "41"], ["--set", "beta=0"], ["--sft-set", "seed=3"]]
    {
        assert!(!has_default_settings(&changed), "{changed:?}");
    }
    assert!(!has_default_settings(&["--robot", "--episodes", "61"]));
    assert!(!has_default_settings(&["--robot", "--examples", "40"]));
}

#[test]
fn the_quickstart_of_the_robot_has_defaults_and_options_of_its_own() {
    let Command::Quickstart(args) = parsed(&["quickstart", "--robot", "--full"]) else { panic!() };
    assert_eq!((args.episodes, args.examples), (60, 60));
    let examples = format!("{} worked examples, {} of each kind", args.examples, args.examples / 3);
    let page = include_str!("../../../../docs/robot-r1.md");
    for text in [include_str!("../../../../configs/quickstart-robot-sft.toml"), page] {
        assert!(text.contains(&examples), "{examples}");
    }
    assert!(page.contains(&format!("{} episodes of each of ten tasks", args.episodes)));
    let script = include_str!("../../../../scripts/learning/arm_answers_only.sh");
    assert!(script.contains(&format!("for worked in {} all", args.examples)));
    assert_eq!(args.output, Path::new("results/quickstart-robot"));
    for words in [
        &["--robot", "--vision"][..],
        &["--robot", "--rooms", "9"],
        &["--episodes", "9"],
        &["--vision", "--episodes", "9"],
    ] {
        let words = [&["embodied-r", "quickstart"][..], words].concat();
        assert!(try_parse_from(words.iter()).is_err(), "{words:?}");
    }
}

#[test]
fn the_model_has_an_official_name() {
    for flag in ["--model", "--model-path", "--model_path"] {
        let infer = ["infer", "--data", "d", "--output", "a", flag, "m"];
        let Command::Infer(args) = parsed(&infer) else { panic!() };
        assert_eq!(args.reasoner.model.model.as_deref(), Some("m"));
        let Command::Filter(args) = parsed(&["filter", "--data", "d", "--output", "o", flag, "m"])
        else {
            panic!()
        };
        assert_eq!(args.blind.model, "m");
        let Command::Train(args) = parsed(&["train", flag, "m"]) else { panic!() };
        assert_eq!(args.run.model.as_deref(), Some("m"));
    }
}

#[test]
fn rewards_are_named_as_by_trl() {
    for flag in ["--reward-funcs", "--reward_funcs"] {
        let Command::Train(args) = parsed(&["train", flag, "accuracy", "format"]) else { panic!() };
        assert_eq!(args.reward_funcs, ["accuracy", "format"]);
        assert_eq!(args.run.setting_flags, [], "an option of its own is no flag of a setting");
    }
}

#[test]
fn plan_takes_cuda_and_its_old_name_in_any_build() {
    for (name, device) in
        [("cuda", DeviceName::Cuda), ("gpu", DeviceName::Cuda), ("cpu", DeviceName::Cpu)]
    {
        let Command::Plan(args) = parsed(&["plan", "--device", name]) else { panic!() };
        assert_eq!(args.device, device, "{name}");
    }
    let Command::Plan(args) = parsed(&["plan"]) else { panic!() };
    assert_eq!(args.device, DeviceName::Cuda);
}

#[test]
fn old_spellings_are_hidden() {
    let old = [
        "--save-path",
        "--save_path",
        "--data-paths",
        "--data_paths",
        "--folder-path",
        "--folder_path",
        "--reward_funcs",
        "--out ",
        "--input",
        "--model-path",
        "--model_path",
        "--perceiver",
        "--api-model",
        "gpu,",
    ];
    for_each_command(&mut command(), &mut |command| {
        let help = command.render_long_help().to_string();
        for spelling in old {
            assert!(!help.contains(spelling), "`{spelling}` in\n{help}");
        }
    });
}

#[test]
fn log_stands_last_in_every_help() {
    let mut command = command();
    command.build();
    for_each_command(&mut command, &mut |command| {
        let help = command.render_help().to_string();
        let at = help.find("--log").unwrap_or_else(|| panic!("no `--log` in\n{help}"));
        let after = help[at + 1..].lines().skip(1);
        let mut options = after.filter(|line| line.trim_start().starts_with('-'));
        assert_eq!(options.next(), None, "behind `--log` in\n{help}");
    });
}

#[test]
fn every_command_and_option_has_a_help() {
    for_each_command(&mut command(), &mut |command| {
        assert!(command.get_about().is_some(), "{}", command.get_name());
        for argument in command.get_arguments() {
            let (name, id) = (command.get_name(), argument.get_id());
            assert!(argument.get_help().is_some(), "{name}: {id}");
        }
    });
    assert!(Cli::command().get_about().is_some());
}

#[test]
fn a_heading_does_not_leak_to_the_options_after_it() {
    // clap gives an option the heading of a flattened struct before it.
    const PLAIN: [&str; 9] =
        ["json", "data", "output", "policy", "limit", "name", "benchmark", "dry_run", "eval_data"];
    for_each_command(&mut command(), &mut |command| {
        for argument in command.get_arguments() {
            let (name, id) = (command.get_name(), argument.get_id().as_str());
            let heading = argument.get_help_heading();
            assert!(!PLAIN.contains(&id) || heading.is_none(), "{name}: {id} under {heading:?}");
        }
    });
}

/// Calls `check` with every command and subcommand but clap's own `help`.
fn for_each_command(command: &mut clap::Command, check: &mut dyn FnMut(&mut clap::Command)) {
    check(command);
    for command in command.get_subcommands_mut().filter(|command| command.get_name() != "help") {
        for_each_command(command, check);
    }
}
