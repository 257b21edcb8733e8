//! Which columns of a LeRobot data set are the gripper's position, its opening and the joints' velocities.

mod gripper;
mod plausible;

use std::collections::BTreeMap;

use embodied_r_lerobot::{Column, Dataset, Episode, Feature, TaskSpan};
use serde::Serialize;

use crate::demonstration::Demonstration;
use crate::error::{Error, Result};
use gripper::gripper;
pub use gripper::{Gripper, GripperColumn};

/// The feature with the robot's state.
pub const STATE_KEY: &str = "observation.state";

/// What the user says about the columns; the rest follows from their names.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ColumnOptions {
    /// The camera of the questions' images.
    pub camera: Option<String>,
    /// The feature with the position; `None` is [`STATE_KEY`], or another one by its names.
    pub state_key: Option<String>,
    /// Where in the state x, y and z are.
    pub position_dims: Option<[usize; 3]>,
    /// What coordinates are multiplied by to be metres; `None` is 1.
    pub position_scale: Option<f64>,
    /// Where the gripper's opening is.
    pub gripper: GripperColumn,
    /// Whether joint velocities are read, and from which feature.
    pub velocity: VelocityColumn,
}

/// Whether joint velocities are read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum VelocityColumn {
    /// If there is a feature of them, by its name.
    #[default]
    ByName,
    /// From this feature.
    Key(String),
    /// They are not read.
    Ignored,
}

/// The columns of a data set.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Columns {
    /// The camera of the questions' images.
    pub camera: String,
    /// The feature with the position.
    pub state_key: String,
    /// Where in the state x, y and z are.
    pub position_dims: [usize; 3],
    /// What coordinates are multiplied by to be metres.
    pub position_scale: f64,
    /// Where the gripper's opening is, if it is recorded.
    pub gripper: Option<Gripper>,
    /// The feature of the joints' velocities.
    pub velocity_key: Option<String>,
}

impl Columns {
    /// The columns of `dataset`.
    ///
    /// # Errors
    /// [`Error::Option`] if an option names a column that does not exist, or if a column cannot be found by name; with
    /// what there is.
    pub fn new(dataset: &Dataset, options: &ColumnOptions) -> Result<Self> {
        let features = dataset.features();
        let camera = camera(&dataset.cameras(), options.camera.as_deref())?;
        let state_key = match options.state_key.as_deref() {
            Some(key) => key,
            None => state_key(features, options.position_dims),
        };
        let state = numbers(features, "--state-key", state_key)?;
        Ok(Self {
            camera,
            position_dims: position_dims(state_key, state, options.position_dims)?,
            position_scale: options.position_scale.unwrap_or(1.0),
            gripper: gripper(features, state_key, &options.gripper)?,
            velocity_key: velocity_key(features, &options.velocity)?,
            state_key: state_key.to_owned(),
        })
    }

    /// What may be wrong with the positions of `demonstrations`, as warnings with what to do.
    pub(crate) fn doubts(
        &self,
        dataset: &Dataset,
        demonstrations: &[Demonstration],
    ) -> Vec<String> {
        let names = dataset.features().get(&self.state_key).and_then(|it| it.names.as_deref());
        let joints = plausible::joints(&self.state_key, self.position_dims, names);
        let far = plausible::far(&self.state_key, demonstrations);
        joints.into_iter().chain(far).collect()
    }

    /// The demonstrations of `dataset` in order of their episodes.
    ///
    /// # Errors
    /// Those of [`Dataset::read_episodes`], or an episode has no frames or a number that is not finite.
    pub fn read(&self, dataset: &Dataset) -> Result<Vec<Demonstration>> {
        let mut keys = vec![self.state_key.as_str()];
        keys.extend(self.gripper.as_ref().map(|gripper| gripper.key.as_str()));
        keys.extend(self.velocity_key.as_deref());
        let mut read = Vec::with_capacity(dataset.episodes().len());
        dataset.read_episodes(&keys, |episode| -> Result<()> {
            let demonstration = self.demonstration(&episode);
            demonstration.check()?;
            read.push(demonstration);
            Ok(())
        })?;
        Ok(read)
    }

    fn demonstration(&self, episode: &Episode) -> Demonstration {
        let rows = |key: &str| episode.columns.get(key).map(rows).unwrap_or_default();
        let state = rows(&self.state_key);
        // A column has the width that its feature was checked to have.
        let at = |row: &&[f64], dim: usize| row.get(dim).copied().unwrap_or(f64::NAN);
        let position =
            |row: &&[f64]| self.position_dims.map(|dim| at(row, dim) * self.position_scale);
        let fastest = |row: &[f64]| row.iter().fold(0.0, |fastest: f64, v| fastest.max(v.abs()));
        let velocities = self.velocity_key.as_deref().map(rows).unwrap_or_default();
        Demonstration {
            episode: episode.index,
            tasks: episode.tasks.iter().map(trimmed).collect(),
            positions: state.iter().map(position).collect(),
            gripper: self
                .gripper
                .iter()
                .flat_map(|gripper| rows(&gripper.key).into_iter().map(|row| at(&row, gripper.dim)))
                .collect(),
            joint_speeds: velocities.into_iter().map(fastest).collect(),
            annotations: Vec::new(),
        }
    }
}

fn trimmed(span: &TaskSpan) -> TaskSpan {
    TaskSpan { start: span.start, task: span.task.trim().to_owned() }
}

/// The rows of a column.
fn rows(column: &Column) -> Vec<&[f64]> {
    column.values.chunks_exact(column.width.max(1)).collect()
}

fn fault(option: &'static str, reason: String) -> Error {
    Error::Option { option, reason }
}

fn list<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// The one of `cameras` that `wanted` names, with or without `observation.images.`; or whose name has `front`, or the only
/// one.
///
/// # Errors
/// [`Error::Option`] if there is none, with all cameras.
pub fn camera(cameras: &[&str], wanted: Option<&str>) -> Result<String> {
    let named = |part: &str| {
        let found: Vec<&str> = cameras.iter().filter(|name| name.contains(part)).copied().collect();
        <[&str; 1]>::try_from(found).ok()
    };
    let found = match (wanted, cameras) {
        (Some(wanted), _) => cameras
            .iter()
            .find(|name| {
                **name == wanted || name.strip_prefix("observation.images.") == Some(wanted)
            })
            .copied(),
        (None, [only]) => Some(*only),
        (None, _) => named("front").map(|[name]| name),
    };
    found.map(str::to_owned).ok_or_else(|| {
        let cameras = list(cameras.iter().copied());
        let reason = match (wanted, cameras.is_empty()) {
            (_, true) => "has nothing to name: the data set has no camera".to_owned(),
            (Some(wanted), _) => format!("names no camera: `{wanted}`; there are {cameras}"),
            (None, _) => format!("must name one of the cameras: {cameras}"),
        };
        fault("--camera", reason)
    })
}

/// Whether a feature holds numbers.
fn is_number(feature: &Feature) -> bool {
    ["float", "int", "uint"].iter().any(|kind| feature.dtype.starts_with(kind))
}

/// The feature `key`, if it holds numbers.
fn numbers<'a>(
    features: &'a BTreeMap<String, Feature>,
    option: &'static str,
    key: &str,
) -> Result<&'a Feature> {
    let found = features.get(key).filter(|feature| is_number(feature));
    found.ok_or_else(|| {
        let all = features.iter().filter(|(_, feature)| is_number(feature));
        let all = list(all.map(|(key, _)| key.as_str()));
        fault(option, format!("names no feature of numbers: `{key}`; there are {all}"))
    })
}

/// The feature with the position if none is named: [`STATE_KEY`], or the only other observation with the names x, y and z
/// if it has none.
fn state_key(features: &BTreeMap<String, Feature>, wanted: Option<[usize; 3]>) -> &str {
    let has_position = |key: &str| {
        features.get(key).is_some_and(|it| is_number(it) && position_dims(key, it, None).is_ok())
    };
    let keys = features.keys().map(String::as_str);
    let mut others = keys.filter(|key| key.starts_with("observation.") && has_position(key));
    match (others.next(), others.next()) {
        (Some(other), None) if wanted.is_none() && !has_position(STATE_KEY) => other,
        _ => STATE_KEY,
    }
}

/// The indices of x, y and z.
fn position_dims(key: &str, state: &Feature, wanted: Option<[usize; 3]>) -> Result<[usize; 3]> {
    const OPTION: &str = "--position-dims";
    if let Some(dims @ [x, y, z]) = wanted {
        let width = state.width();
        return match dims.iter().all(|dim| *dim < width) && x != y && y != z && x != z {
            true => Ok(dims),
            false => Err(fault(
                OPTION,
                format!("must be three different indices below {width}, the width of `{key}`"),
            )),
        };
    }
    let Some(names) = &state.names else {
        return Err(fault(
            OPTION,
            format!("is needed, such as `0,1,2`: the feature `{key}` has no names"),
        ));
    };
    // An exact name first, then a part of one, such as `ee.x` or `x.pos`.
    let exact = |name: &str, axis: &str| name.eq_ignore_ascii_case(axis);
    let part = |name: &str, axis: &str| {
        name.split(|c: char| !c.is_ascii_alphanumeric()).any(|part| exact(part, axis))
    };
    let find = |matches: &dyn Fn(&str, &str) -> bool| {
        let dim = |axis: &str| {
            let mut found = (0..names.len()).filter(|dim| matches(&names[*dim], axis));
            found.next().filter(|_| found.next().is_none())
        };
        Some([dim("x")?, dim("y")?, dim("z")?])
    };
    find(&exact).or_else(|| find(&part)).ok_or_else(|| {
        let names = list(names.iter().map(String::as_str));
        fault(
            OPTION,
            format!(
                "is needed, such as `0,1,2`: not one name each of `{key}` is x, y and z: {names}"
            ),
        )
    })
}

/// The feature of the joints' velocities.
fn velocity_key(
    features: &BTreeMap<String, Feature>,
    wanted: &VelocityColumn,
) -> Result<Option<String>> {
    const OPTION: &str = "--velocity-key";
    match wanted {
        VelocityColumn::Ignored => Ok(None),
        VelocityColumn::Key(key) => {
            numbers(features, OPTION, key)?;
            Ok(Some(key.clone()))
        }
        VelocityColumn::ByName => {
            let is_velocity = |key: &&String| {
                let key = key.to_ascii_lowercase();
                key.starts_with("observation.") && key.contains("joint") && key.contains("vel")
            };
            let found: Vec<&String> = features.keys().filter(is_velocity).collect();
            match found.as_slice() {
                [] => Ok(None),
                [key] => Ok(Some(numbers(features, OPTION, key).map(|_| (*key).clone())?)),
                keys => {
                    let keys = list(keys.iter().map(|key| key.as_str()));
                    Err(fault(OPTION, format!("must name one of the velocities: {keys}")))
                }
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(super) fn feature(names: &[&str]) -> Feature {
        Feature {
            dtype: "float32".to_owned(),
            shape: vec![names.len()],
            names: Some(names.iter().map(|&name| name.to_owned()).collect()),
        }
    }

    pub(super) fn reason<T: std::fmt::Debug>(result: Result<T>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn the_camera_is_the_front_one_or_the_only_one() {
        let (front, wrist) = ("observation.images.front_rgb", "observation.images.wrist");
        assert_eq!(camera(&[front, wrist], None).unwrap(), front);
        assert_eq!(camera(&[wrist], None).unwrap(), wrist);
        assert_eq!(camera(&[front, wrist], Some("wrist")).unwrap(), wrist);
        assert_eq!(camera(&[front, wrist], Some(wrist)).unwrap(), wrist);
        for (cameras, wanted) in [
            (&["left", "right"][..], None),
            (&["front_left", "front_right"], None),
            (&["left", "right"], Some("up")),
        ] {
            let error = reason(camera(cameras, wanted));
            assert!(cameras.iter().all(|name| error.contains(&format!("`{name}`"))), "{error}");
        }
        assert!(reason(camera(&[], None)).contains("has no camera"));
    }

    #[test]
    fn positions_are_found_by_name() {
        for (names, expected) in [
            (&["x", "y", "z", "qx", "qy", "qz", "qw", "gripper"][..], [0, 1, 2]),
            (&["gripper", "ee.x", "ee.y", "ee.z"], [1, 2, 3]),
            (&["z.pos", "y.pos", "x.pos"], [2, 1, 0]),
            (&["X", "Y", "Z", "target.x"], [0, 1, 2]),
        ] {
            let found = position_dims("observation.state", &feature(names), None).unwrap();
            assert_eq!(found, expected);
        }
        let ambiguous = feature(&["left.x", "left.y", "left.z", "right.x", "right.y", "right.z"]);
        let error = reason(position_dims("observation.state", &ambiguous, None));
        assert!(
            error.contains("`--position-dims` is needed") && error.contains("`left.x`"),
            "{error}"
        );
        let nameless = Feature { names: None, ..feature(&["x", "y", "z"]) };
        assert!(reason(position_dims("observation.state", &nameless, None)).contains("no names"));
    }

    #[test]
    fn given_dimensions_are_checked() {
        let state = feature(&["a", "b", "c", "d"]);
        assert_eq!(position_dims("s", &state, Some([3, 0, 1])).unwrap(), [3, 0, 1]);
        for dims in [[0, 1, 4], [0, 0, 1]] {
            let error = reason(position_dims("s", &state, Some(dims)));
            assert!(error.contains("three different indices below 4"), "{error}");
        }
    }

    #[test]
    fn without_a_name_the_position_is_in_the_only_feature_that_has_one() {
        let features = |keys: &[(&str, &[&str])]| -> BTreeMap<String, Feature> {
            keys.iter().map(|(key, names)| ((*key).to_owned(), feature(names))).collect()
        };
        let (joints, xyz) = (&["joint_0", "gripper"][..], &["x", "y", "z"][..]);
        let own = "observation.state.cartesian_position";
        let droid = features(&[(STATE_KEY, joints), (own, xyz), ("action.cartesian", xyz)]);
        assert_eq!(state_key(&droid, None), own);
        assert_eq!(state_key(&droid, Some([0, 1, 2])), STATE_KEY);
        let two = features(&[(STATE_KEY, joints), (own, xyz), ("observation.ee", xyz)]);
        assert_eq!(state_key(&two, None), STATE_KEY);
        assert_eq!(state_key(&features(&[(STATE_KEY, xyz), (own, xyz)]), None), STATE_KEY);
    }

    #[test]
    fn joint_velocities_are_found_by_key() {
        let features = |keys: &[&str]| {
            keys.iter().map(|&key| (key.to_owned(), feature(&["a"]))).collect::<BTreeMap<_, _>>()
        };
        let by_name = |keys: &[&str]| velocity_key(&features(keys), &VelocityColumn::ByName);
        let key = "observation.joint_velocity";
        assert_eq!(by_name(&["action", key]).unwrap().as_deref(), Some(key));
        assert_eq!(by_name(&["action"]).unwrap(), None);
        let both = [key, "observation.joint_vel"];
        assert!(reason(by_name(&both)).contains("must name one"));
        let ignored = velocity_key(&features(&[key]), &VelocityColumn::Ignored).unwrap();
        assert_eq!(ignored, None);
        let wrong = VelocityColumn::Key("speed".to_owned());
        let error = reason(velocity_key(&features(&[key]), &wrong));
        assert!(error.contains("`speed`") && error.contains(key), "{error}");
    }

    #[test]
    fn rows_become_positions_openings_and_speeds() {
        let columns = Columns {
            camera: "front".to_owned(),
            state_key: "s".to_owned(),
            position_dims: [1, 2, 0],
            position_scale: 0.5,
            gripper: Some(Gripper { key: "g".to_owned(), dim: 1 }),
            velocity_key: Some("v".to_owned()),
        };
        let column = |width, values: &[f64]| Column { width, values: values.to_vec() };
        let episode = Episode {
            index: 4,
            tasks: vec![TaskSpan { start: 0, task: " push \n".to_owned() }],
            timestamps: vec![0.0, 0.1],
            columns: BTreeMap::from([
                ("s".to_owned(), column(3, &[3.0, 1.0, 2.0, 6.0, 4.0, 5.0])),
                ("g".to_owned(), column(2, &[9.0, 0.5, 9.0, 1.0])),
                ("v".to_owned(), column(2, &[0.25, -0.5, 0.0, 0.125])),
            ]),
        };
        let read = columns.demonstration(&episode);
        assert_eq!((read.episode, read.task(0)), (4, "push"));
        assert_eq!(read.positions, [[0.5, 1.0, 1.5], [2.0, 2.5, 3.0]]);
        assert_eq!((read.gripper, read.joint_speeds), (vec![0.5, 1.0], vec![0.5, 0.125]));
    }
}
