//! The state of a rendering.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use indexmap::IndexMap;

use super::ast::Block;
use super::limits::Meter;
use super::value::{Key, Scope, Value};

/// The state of a rendering.
pub(super) struct Rendering {
    pub(super) meter: Meter,
    pub(super) blocks: HashMap<Arc<str>, Arc<Block>>,
    /// The variables that the template sets outside of loops and macros.
    pub(super) root: Rc<Scope>,
    /// All namespaces, so that they may refer to each other.
    pub(super) namespaces: RefCell<Vec<IndexMap<Key, Value>>>,
    /// The scopes that macros refer to, which may have those macros.
    pub(super) captured: RefCell<Vec<Rc<Scope>>>,
}

impl Drop for Rendering {
    fn drop(&mut self) {
        // Macros and their scopes refer to each other.
        for scope in self.captured.take() {
            scope.clear();
        }
        self.root.clear();
    }
}
