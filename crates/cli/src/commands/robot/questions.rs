//! `embodied-r robot questions`.

use std::path::Path;

use embodied_r_data::Progress as _;
use embodied_r_lerobot::Dataset;
use embodied_r_robot::annotations::ANNOTATIONS;
use embodied_r_robot::output::{check_output, write};
use embodied_r_robot::{
    AnswerForm, ColumnOptions, Distractors, Error, GripperColumn, Kind, Prepared, PromptStyle,
    QuestionOptions, Robot, Settings, Split, VelocityColumn,
};

use super::key_points;
use crate::args::robot::questions::{
    ColumnArgs, DistractorsName, GripperDim, KeyPointArgs, MadeArgs, MovementLabels, PromptName,
    QuestionsArgs,
};
use crate::exit::{Status, Usage};
use crate::hub;
use crate::output::outln;
use crate::progress::Bar;

/// The bound of `--movement-labels epsilon` without `--movement-epsilon`.
const MOVEMENT_EPSILON_M: f64 = 0.005;

/// Make questions from demonstrations.
pub(super) fn run(args: QuestionsArgs) -> anyhow::Result<Status> {
    let shown = args.key_points.show_keypoints;
    let beside = Path::new(&args.demos).join(ANNOTATIONS);
    let annotations = args.annotations.or_else(|| beside.is_file().then_some(beside));
    let settings = Settings { annotations, ..settings(args.columns, &args.key_points, args.made)? };
    // Fails before a data set is downloaded or read.
    settings.check().map_err(advise)?;
    check_output(&args.output).map_err(advise)?;
    let bar = Bar::default();
    let camera = settings.columns.camera.as_deref();
    let folder = hub::dataset(&args.demos, args.revision.as_deref(), camera)?;
    let dataset = Dataset::open(&folder)?;
    bar.start("reading demonstrations", None);
    let prepared = Prepared::new(&dataset, &settings, &bar).map_err(advise)?;
    bar.finish();
    let extra = |folder: &Path| key_points::write(&prepared, &dataset, &settings, shown, folder);
    write(&prepared, &dataset, &settings, &args.demos, &args.output, &bar, extra)?;
    report(&prepared, settings.questions.form, &bar)?;
    outln!("wrote {}", args.output.display())?;
    Ok(Status::Done)
}

fn settings(
    columns: ColumnArgs,
    key_points: &KeyPointArgs,
    made: MadeArgs,
) -> anyhow::Result<Settings> {
    let velocity = match (columns.velocity_key, key_points.still_epsilon) {
        (Some(key), _) => VelocityColumn::Key(key),
        (None, Some(_)) => VelocityColumn::Ignored,
        (None, None) => VelocityColumn::ByName,
    };
    Ok(Settings {
        columns: ColumnOptions {
            camera: columns.camera,
            state_key: columns.state_key,
            position_dims: columns.position_dims.map(|dims| dims.0),
            position_scale: columns.position_scale,
            gripper: gripper(columns.gripper_key, columns.gripper_dim)?,
            velocity,
        },
        still_velocity: key_points.still_velocity,
        still_epsilon: key_points.still_epsilon,
        gripper_threshold: key_points.gripper_threshold,
        shares: made.split,
        held_out_tasks: made.held_out_tasks,
        annotations: None,
        questions: QuestionOptions {
            stride: made.stride,
            form: match made.open_ended {
                true => AnswerForm::OpenEnded,
                false => AnswerForm::MultipleChoice,
            },
            distractors: match made.distractors {
                DistractorsName::Keypoints => Distractors::Keypoints,
                DistractorsName::Box => Distractors::Box,
            },
            min_distance: made.min_distance,
            movement_epsilon: movement_epsilon(made.movement_labels, made.movement_epsilon)?,
            balance_kinds: made.balance_kinds,
            seed: made.seed,
        },
        style: match made.prompt {
            PromptName::Paper => PromptStyle::Paper,
            PromptName::Compact => PromptStyle::Compact,
        },
        decimals: made.decimals,
        robot: match made.robot {
            Some(path) => Robot::read(&path).map_err(advise)?,
            None => Robot::default(),
        },
    })
}

/// The displacement below which an axis is in no movement, in metres.
fn movement_epsilon(labels: Option<MovementLabels>, epsilon: Option<f64>) -> anyhow::Result<f64> {
    match (labels, epsilon) {
        (None | Some(MovementLabels::Epsilon), Some(epsilon)) => Ok(epsilon),
        (Some(MovementLabels::Epsilon), None) => Ok(MOVEMENT_EPSILON_M),
        (None | Some(MovementLabels::Paper), None) => Ok(0.0),
        (Some(MovementLabels::Paper), Some(_)) => {
            let reason =
                "`--movement-epsilon` is of `--movement-labels epsilon`: leave one of them out";
            Err(Usage(reason.to_owned()).into())
        }
    }
}

/// Where the gripper's opening is.
fn gripper(key: Option<String>, dim: Option<GripperDim>) -> anyhow::Result<GripperColumn> {
    Ok(match (key, dim) {
        (None, None) => GripperColumn::ByName,
        (None, Some(GripperDim::At(dim))) => GripperColumn::Dim(dim),
        (None, Some(GripperDim::Absent)) => GripperColumn::Absent,
        (Some(key), None) => GripperColumn::Key { key, dim: None },
        (Some(key), Some(GripperDim::At(dim))) => GripperColumn::Key { key, dim: Some(dim) },
        (Some(_), Some(GripperDim::Absent)) => {
            let reason = "`--gripper-key` names a feature, and `--gripper-dim none` says that there is none; leave one out";
            return Err(Usage(reason.to_owned()).into());
        }
    })
}

/// What is wrong with the options or a robot's file is a usage error.
fn advise(error: Error) -> anyhow::Error {
    match error {
        Error::Option { .. }
        | Error::Robot { .. }
        | Error::Toml { .. }
        | Error::NotEmpty { .. } => Usage(error.to_string()).into(),
        other => other.into(),
    }
}

/// Prints the numbers of questions, and warns of what is missing.
fn report(prepared: &Prepared, form: AnswerForm, bar: &Bar) -> anyhow::Result<()> {
    let counts = &prepared.questions.counts;
    outln!("{:<9} {:>9} {:>9} {:>9}", "split", "waypoint", "state", "movement")?;
    for split in Split::ALL {
        let of = |kind| counts.get(&(split, kind)).copied().unwrap_or_default();
        let [waypoint, state, movement] = Kind::ALL.map(|kind| of(kind).questions);
        if split == Split::HeldOut && !prepared.splits.contains(&split) {
            continue;
        }
        outln!("{:<9} {waypoint:>9} {state:>9} {movement:>9}", split.name())?;
        for kind in Kind::ALL.into_iter().filter(|kind| of(*kind).questions == 0) {
            if kind == Kind::Movement && form == AnswerForm::OpenEnded {
                continue;
            }
            bar.warn(&format!(
                "`{}.json` has no {} questions: its episodes give no balanced options; give more episodes",
                split.name(),
                kind.name()
            ));
        }
    }
    let surplus: usize = counts.values().map(|count| count.surplus).sum();
    if surplus > 0 {
        outln!("{surplus} questions are left out: `--balance-kinds` leaves as many of each kind")?;
    }
    for kind in Kind::ALL {
        let of_kind = counts.iter().filter(|((_, other), _)| *other == kind);
        let (left_out, all) = of_kind.fold((0, 0), |(left_out, all), (_, count)| {
            (left_out + count.left_out, all + count.left_out + count.questions + count.surplus)
        });
        if left_out > 0 {
            outln!(
                "{left_out} of {all} start frames have no {} question: their answers fit into no balanced set of options",
                kind.name()
            )?;
        }
    }
    Ok(())
}
