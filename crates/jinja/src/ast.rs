//! The syntax tree of a template.

use std::sync::Arc;

/// Statements, each with its line.
pub(super) type Body = Vec<(usize, Statement)>;

pub(super) enum Statement {
    /// Template text.
    Text(String),
    /// `{{ … }}`.
    Output(Expr),
    /// `{% print …, … %}`.
    Print(Vec<Expr>),
    For(Arc<For>),
    /// Conditions with their bodies, and what is rendered if none holds.
    If(Vec<(Expr, Body)>, Body),
    With(Vec<(Target, Expr)>, Body),
    Set(Target, Expr),
    /// `{% set … %}…{% endset %}` with its filters.
    SetBlock(Target, Option<Expr>, Body),
    AutoEscape(Expr, Body),
    /// `{% filter … %}`; the innermost filter has no operand.
    Filter(Expr, Body),
    Block(Arc<Block>),
    Macro(Arc<Macro>),
    /// `{% call … %}` of an expression, whose `caller` the macro is.
    Call(Expr, Arc<Macro>),
    /// `{% generation %}…{% endgeneration %}`, a scope of its own.
    Generation(Body),
    Break,
    Continue,
    /// Variables that are undefined until they are set, also those of the conversation with these names.
    Unset(Vec<Arc<str>>),
    /// `{% include … %}` and other statements that load templates.
    Load(&'static str),
}

pub(super) struct For {
    pub(super) target: Target,
    pub(super) items: Expr,
    pub(super) condition: Option<Expr>,
    pub(super) recursive: bool,
    pub(super) body: Body,
    pub(super) otherwise: Body,
}

pub(super) struct Block {
    pub(super) name: Arc<str>,
    /// Whether it sees the variables around it.
    pub(super) scoped: bool,
    pub(super) body: Body,
}

pub(super) struct Macro {
    /// The body of `{% call %}` has none.
    pub(super) name: Option<Arc<str>>,
    pub(super) parameters: Vec<(Arc<str>, Option<Expr>)>,
    pub(super) body: Body,
    pub(super) uses: Uses,
}

/// Which implicit variables the body of a macro uses.
#[derive(Clone, Copy, Default)]
pub(super) struct Uses {
    pub(super) caller: bool,
    pub(super) kwargs: bool,
    pub(super) varargs: bool,
}

/// What is assigned to.
pub(super) enum Target {
    Name(Arc<str>),
    /// An attribute of a namespace.
    Attribute(Arc<str>, Arc<str>),
    Tuple(Vec<Target>),
}

pub(super) struct Expr {
    pub(super) line: usize,
    pub(super) kind: Kind,
}

pub(super) enum Kind {
    Literal(Literal),
    Name(Arc<str>),
    List(Vec<Expr>),
    Tuple(Vec<Expr>),
    Dict(Vec<(Expr, Expr)>),
    Not(Box<Expr>),
    Negative(Box<Expr>),
    Positive(Box<Expr>),
    And(Vec<Expr>),
    Or(Vec<Expr>),
    /// `a ~ b ~ …`.
    Concat(Vec<Expr>),
    /// Operators of one precedence, from left to right.
    Math(Box<Expr>, Vec<(Math, Expr)>),
    /// `a < b == c …`.
    Compare(Box<Expr>, Vec<(Comparison, Expr)>),
    Condition(Box<Condition>),
    Attribute(Box<Expr>, Arc<str>),
    Item(Box<Expr>, Box<Expr>),
    Slice(Box<Expr>, Box<[Option<Expr>; 3]>),
    Call(Box<Expr>, Arguments),
    Filter(Option<Box<Expr>>, Arc<str>, Arguments),
    Test(Box<Expr>, Arc<str>, Arguments),
}

/// `value if test else otherwise`.
pub(super) struct Condition {
    pub(super) value: Expr,
    pub(super) test: Expr,
    pub(super) otherwise: Option<Expr>,
}

#[derive(Clone)]
pub(super) enum Literal {
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(Arc<str>),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Math {
    Add,
    Subtract,
    Multiply,
    Divide,
    FloorDivide,
    Modulo,
    Power,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
    NotIn,
}

#[derive(Default)]
pub(super) struct Arguments {
    pub(super) positional: Vec<Expr>,
    pub(super) keywords: Vec<(Arc<str>, Expr)>,
    /// `*list`.
    pub(super) list: Option<Box<Expr>>,
    /// `**dict`.
    pub(super) dict: Option<Box<Expr>>,
}
