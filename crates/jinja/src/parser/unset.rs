//! Which variables a block hides from its start on, since it sets them before it reads them.
//!
//! jinja2 decides where a name comes from when it compiles: a name that a block sets first is the block's own, so a
//! loop or macro in it does not see the variable of the conversation with that name, even before it is set.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::super::ast::{Arguments, Body, Expr, Kind, Statement, Target};

type Names = HashSet<Arc<str>>;

/// Adds [`Statement::Unset`] to the blocks of a template.
pub(super) fn hide_unset(body: &mut Body) {
    block(body, Names::new(), &mut Vec::new());
}

/// The names that a block has used so far, in order, and whether it has set them first.
#[derive(Default)]
struct Seen {
    names: HashMap<Arc<str>, bool>,
    order: Vec<Arc<str>>,
}

/// A block with its parameters, in others whose names are `around`.
fn block(body: &mut Body, parameters: Names, around: &mut Vec<Names>) {
    let mut seen = Seen::default();
    parameters.iter().for_each(|name| seen.read(name));
    seen.body(body);
    let is_unset = |name: &&Arc<str>| {
        seen.names.get(*name) == Some(&true) && !around.iter().any(|names| names.contains(*name))
    };
    let unset: Vec<Arc<str>> = seen.order.iter().filter(is_unset).cloned().collect();
    around.push(seen.order.into_iter().collect());
    for (_, statement) in body.iter_mut() {
        inner_blocks(statement, around);
    }
    around.pop();
    if !unset.is_empty() {
        let line = body.first().map_or(1, |(line, _)| *line);
        body.insert(0, (line, Statement::Unset(unset)));
    }
}

fn inner_blocks(statement: &mut Statement, around: &mut Vec<Names>) {
    match statement {
        Statement::For(code) => {
            let Some(code) = Arc::get_mut(code) else { return };
            let mut parameters = Names::from(["loop".into()]);
            add_target(&code.target, &mut parameters);
            block(&mut code.body, parameters, around);
            block(&mut code.otherwise, Names::new(), around);
        }
        Statement::If(branches, otherwise) => {
            let bodies = branches.iter_mut().map(|(_, body)| body).chain([otherwise]);
            for (_, statement) in bodies.flatten() {
                inner_blocks(statement, around);
            }
        }
        Statement::With(variables, body) => {
            let mut parameters = Names::new();
            variables.iter().for_each(|(target, _)| add_target(target, &mut parameters));
            block(body, parameters, around);
        }
        Statement::Macro(code) | Statement::Call(_, code) => {
            let Some(code) = Arc::get_mut(code) else { return };
            let own = ["caller", "kwargs", "varargs"].map(Arc::from);
            let parameters = code.parameters.iter().map(|(name, _)| name.clone()).chain(own);
            block(&mut code.body, parameters.collect(), around);
        }
        Statement::SetBlock(_, _, body)
        | Statement::AutoEscape(_, body)
        | Statement::Filter(_, body)
        | Statement::Generation(body) => block(body, Names::new(), around),
        _ => {}
    }
}

fn add_target(target: &Target, names: &mut Names) {
    match target {
        Target::Name(name) => {
            names.insert(name.clone());
        }
        Target::Attribute(..) => {}
        Target::Tuple(targets) => targets.iter().for_each(|target| add_target(target, names)),
    }
}

impl Seen {
    fn read(&mut self, name: &Arc<str>) {
        self.add(name, false);
    }

    fn set(&mut self, name: &Arc<str>) {
        self.add(name, true);
    }

    fn add(&mut self, name: &Arc<str>, is_set: bool) {
        if !self.names.contains_key(name) {
            self.names.insert(name.clone(), is_set);
            self.order.push(name.clone());
        }
    }

    /// The statements of a block, without those of the blocks in it.
    fn body(&mut self, body: &Body) {
        body.iter().for_each(|(_, statement)| self.statement(statement));
    }

    fn statement(&mut self, statement: &Statement) {
        match statement {
            Statement::Output(value) => self.expression(value),
            Statement::Print(values) => self.all(values),
            Statement::For(code) => self.expression(&code.items),
            Statement::If(branches, otherwise) => self.branches(branches, otherwise),
            Statement::With(variables, _) => {
                variables.iter().for_each(|(_, value)| self.expression(value));
            }
            Statement::Set(target, value) => {
                self.expression(value);
                self.target(target);
            }
            Statement::SetBlock(target, ..) => self.target(target),
            Statement::Filter(filter, _) => self.expression(filter),
            Statement::Macro(code) => code.name.iter().for_each(|name| self.set(name)),
            Statement::Call(call, _) => self.expression(call),
            _ => {}
        }
    }

    fn target(&mut self, target: &Target) {
        match target {
            Target::Name(name) => self.set(name),
            Target::Attribute(name, _) => self.read(name),
            Target::Tuple(targets) => targets.iter().for_each(|target| self.target(target)),
        }
    }

    /// A name is set first only if all branches set it: the first, the `elif` together, and `else`.
    fn branches(&mut self, branches: &[(Expr, Body)], otherwise: &Body) {
        let Some(((test, body), others)) = branches.split_first() else { return };
        self.expression(test);
        let start = self.order.len();
        self.body(body);
        let first = self.taken(start);
        for (test, body) in others {
            self.expression(test);
            self.body(body);
        }
        let elif = self.taken(start);
        self.body(otherwise);
        let last = self.taken(start);
        let is_set = |part: &HashMap<Arc<str>, bool>, name| part.get(name) == Some(&true);
        for name in first.keys().chain(elif.keys()).chain(last.keys()) {
            let in_all = is_set(&first, name) && is_set(&elif, name) && is_set(&last, name);
            self.add(name, in_all);
        }
    }

    /// Takes back the names since `start`.
    fn taken(&mut self, start: usize) -> HashMap<Arc<str>, bool> {
        let names = self.order.drain(start..);
        names.filter_map(|name| self.names.remove_entry(&name)).collect()
    }

    fn all(&mut self, exprs: &[Expr]) {
        exprs.iter().for_each(|expr| self.expression(expr));
    }

    fn arguments(&mut self, arguments: &Arguments) {
        self.all(&arguments.positional);
        arguments.keywords.iter().for_each(|(_, value)| self.expression(value));
        [&arguments.list, &arguments.dict].into_iter().flatten().for_each(|of| self.expression(of));
    }

    fn expression(&mut self, expr: &Expr) {
        match &expr.kind {
            Kind::Literal(_) => {}
            Kind::Name(name) => self.read(name),
            Kind::List(all)
            | Kind::Tuple(all)
            | Kind::And(all)
            | Kind::Or(all)
            | Kind::Concat(all) => {
                self.all(all);
            }
            Kind::Dict(entries) => entries.iter().for_each(|(key, value)| {
                self.expression(key);
                self.expression(value);
            }),
            Kind::Not(of) | Kind::Negative(of) | Kind::Positive(of) | Kind::Attribute(of, _) => {
                self.expression(of);
            }
            Kind::Math(first, others) => {
                self.expression(first);
                others.iter().for_each(|(_, other)| self.expression(other));
            }
            Kind::Compare(first, others) => {
                self.expression(first);
                others.iter().for_each(|(_, other)| self.expression(other));
            }
            Kind::Condition(condition) => {
                self.expression(&condition.test);
                self.expression(&condition.value);
                condition.otherwise.iter().for_each(|otherwise| self.expression(otherwise));
            }
            Kind::Item(of, key) => {
                self.expression(of);
                self.expression(key);
            }
            Kind::Slice(of, bounds) => {
                self.expression(of);
                bounds.iter().flatten().for_each(|bound| self.expression(bound));
            }
            Kind::Call(callee, arguments) => {
                self.expression(callee);
                self.arguments(arguments);
            }
            Kind::Filter(operand, _, arguments) => {
                operand.iter().for_each(|operand| self.expression(operand));
                self.arguments(arguments);
            }
            Kind::Test(operand, _, arguments) => {
                self.expression(operand);
                self.arguments(arguments);
            }
        }
    }
}
