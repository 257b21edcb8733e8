//! What the quickstart's questions are about, and what follows from it.

use crate::args::quickstart::QuickstartArgs;
use crate::base_model::BaseModel;

/// What the questions are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum World {
    /// Captions of rooms.
    Captions,
    /// Frames of rooms: `--vision`.
    Frames,
    /// Images of a robot arm: `--robot`.
    Robot,
}

/// The settings of the training runs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Configs {
    /// Of SFT.
    pub(super) sft: &'static str,
    /// Of GRPO.
    pub(super) train: &'static str,
}

const CAPTIONS: Configs = Configs {
    sft: include_str!("../../../../../configs/quickstart-sft.toml"),
    train: include_str!("../../../../../configs/quickstart-train.toml"),
};

const FRAMES: Configs = Configs {
    sft: include_str!("../../../../../configs/quickstart-vision-sft.toml"),
    train: include_str!("../../../../../configs/quickstart-vision.toml"),
};

const ROBOT: Configs = Configs {
    sft: include_str!("../../../../../configs/quickstart-robot-sft.toml"),
    train: include_str!("../../../../../configs/quickstart-robot.toml"),
};

impl World {
    pub(super) fn of(args: &QuickstartArgs) -> Self {
        match (args.robot, args.vision) {
            (true, _) => Self::Robot,
            (false, true) => Self::Frames,
            (false, false) => Self::Captions,
        }
    }

    /// The bundled model that training starts from.
    pub(super) fn base(self) -> BaseModel {
        match self {
            Self::Captions => BaseModel::Text,
            Self::Frames => BaseModel::Vision,
            Self::Robot => BaseModel::Arm,
        }
    }

    pub(super) fn configs(self) -> Configs {
        match self {
            Self::Captions => CAPTIONS,
            Self::Frames => FRAMES,
            Self::Robot => ROBOT,
        }
    }

    /// The folder of the questions.
    pub(super) fn folder(self) -> &'static str {
        match self {
            Self::Captions => "perceived",
            Self::Frames => "views",
            Self::Robot => "questions",
        }
    }

    /// The file with the questions of a split in that folder.
    pub(super) fn file(self, split: &str) -> String {
        match self {
            Self::Captions | Self::Frames => format!("{split}_data.json"),
            Self::Robot => format!("{split}_selected.json"),
        }
    }

    /// Whether the model sees images.
    pub(super) fn has_images(self) -> bool {
        self != Self::Captions
    }

    /// The protocol of `eval`.
    pub(super) fn protocol(self) -> &'static str {
        match self {
            Self::Captions | Self::Frames => "embodied-r",
            Self::Robot => "robot-r1",
        }
    }

    /// The option with the system prompt, which is that of the settings in [`Self::configs`].
    pub(super) fn system_prompt(self) -> (&'static str, &'static str) {
        match self {
            // Frames too, which stand in the places of captions in the pretraining of the base.
            Self::Captions | Self::Frames => ("--system-prompt-preset", "bearings"),
            // As in `configs/robot-r1.toml`: the questions say themselves which tags the answer has.
            Self::Robot => ("--system-prompt", "You are a helpful assistant."),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpo_has_the_system_prompt_of_the_other_steps() {
        for world in [World::Captions, World::Frames, World::Robot] {
            let train: toml::Table = toml::from_str(world.configs().train).unwrap();
            let (option, prompt) = world.system_prompt();
            let setting = option.trim_start_matches('-').replace('-', "_");
            assert_eq!(
                train.get(&setting).and_then(toml::Value::as_str),
                Some(prompt),
                "{world:?}"
            );
        }
    }
}
