//! A repository on the hub.

/// What a repository holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RepositoryKind {
    /// A model.
    Model,
    /// A data set.
    Dataset,
}

/// A repository on the hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Repository<'a> {
    pub(super) kind: RepositoryKind,
    /// `org/name`.
    pub(super) name: &'a str,
}

impl<'a> Repository<'a> {
    pub(super) fn model(name: &'a str) -> Self {
        Self { kind: RepositoryKind::Model, name }
    }

    /// The path of its page and of its files.
    pub(super) fn segments(self) -> impl Iterator<Item = &'a str> {
        let prefix = match self.kind {
            RepositoryKind::Model => None,
            RepositoryKind::Dataset => Some("datasets"),
        };
        prefix.into_iter().chain(self.name.split('/'))
    }

    /// The path of its entry in the hub's API.
    pub(super) fn api_segments(self) -> impl Iterator<Item = &'a str> {
        let kind = match self.kind {
            RepositoryKind::Model => "models",
            RepositoryKind::Dataset => "datasets",
        };
        ["api", kind].into_iter().chain(self.name.split('/'))
    }
}
