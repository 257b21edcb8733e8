//! Options of `embodied-r settings`.

/// List the settings of `train` and `sft`, or explain one.
///
/// Without a name: every setting with its default and the first sentence of its meaning. `docs/settings.md` is the same page.
#[derive(Debug, clap::Args)]
pub(crate) struct SettingsArgs {
    /// Setting to explain, by its name here or in TRL.
    #[arg(value_name = "NAME")]
    pub(crate) name: Option<String>,
}
