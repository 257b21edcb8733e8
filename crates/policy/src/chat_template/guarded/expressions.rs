//! Prints the expressions of a chat template, with a check behind each that makes a value.

use std::fmt::Write as _;

use minijinja::machinery::ast;
use minijinja::value::ValueKind;

use super::{CHECK, MULTIPLY, Printed, Printer};

/// Operands of `+` and `~` between two checks, so that a long chain does not nest as deeply as it is long.
const CHAIN: usize = 8;

impl Printer {
    /// Prints `(…)|CHECK`.
    fn checked(&mut self, print: impl FnOnce(&mut Self) -> Printed) -> Printed {
        self.push("(");
        print(self)?;
        let _ = write!(self.out, ")|{CHECK}");
        Ok(())
    }

    pub(super) fn expression(&mut self, expression: &ast::Expr<'_>) -> Printed {
        self.at(expression.span());
        self.deeper(|printer| printer.expression_at(expression))
    }

    fn expression_at(&mut self, expression: &ast::Expr<'_>) -> Printed {
        use ast::Expr;
        match expression {
            Expr::Var(of) => {
                self.push(of.id);
                Ok(())
            }
            Expr::Const(of) => self.constant(&of.value),
            Expr::Slice(of) => self.checked(|printer| {
                printer.primary(&of.expr)?;
                printer.push("[");
                for (index, bound) in [&of.start, &of.stop, &of.step].into_iter().enumerate() {
                    if index > 0 {
                        printer.push(":");
                    }
                    if let Some(bound) = bound {
                        printer.expression(bound)?;
                    }
                }
                printer.push("]");
                Ok(())
            }),
            Expr::UnaryOp(of) => {
                match of.op {
                    ast::UnaryOpKind::Not => {
                        self.push("(not ");
                        self.expression(&of.expr)?;
                    }
                    // A filter would apply to the negative.
                    ast::UnaryOpKind::Neg => {
                        self.push("(-");
                        self.primary(&of.expr)?;
                    }
                }
                self.push(")");
                Ok(())
            }
            Expr::BinOp(of) => self.binary(of),
            Expr::Compare(of) => {
                self.push("(");
                self.expression(&of.expr)?;
                for operand in &of.ops {
                    self.push(comparison(operand.op));
                    self.expression(&operand.expr)?;
                }
                self.push(")");
                Ok(())
            }
            Expr::IfExpr(of) => {
                self.push("(");
                self.expression(&of.true_expr)?;
                self.push(" if ");
                self.expression(&of.test_expr)?;
                if let Some(other) = &of.false_expr {
                    self.push(" else ");
                    self.expression(other)?;
                }
                self.push(")");
                Ok(())
            }
            Expr::Filter(_) => self.filters(expression),
            Expr::Test(of) => {
                self.push("(");
                self.expression(&of.expr)?;
                let _ = write!(self.out, " is {}", of.name);
                self.arguments_if_any(&of.args)?;
                self.push(")");
                Ok(())
            }
            Expr::GetAttr(of) => {
                self.primary(&of.expr)?;
                let _ = write!(self.out, ".{}", of.name);
                Ok(())
            }
            Expr::GetItem(of) => {
                self.primary(&of.expr)?;
                self.push("[");
                self.expression(&of.subscript_expr)?;
                self.push("]");
                Ok(())
            }
            Expr::Call(of) => self.checked(|printer| printer.call(of)),
            Expr::List(of) => self.checked(|printer| {
                printer.push("[");
                printer.list(&of.items, Self::expression)?;
                printer.push("]");
                Ok(())
            }),
            Expr::Tuple(of) => self.checked(|printer| {
                printer.push("(");
                printer.list(&of.items, Self::expression)?;
                printer.push(if of.items.len() == 1 { ",)" } else { ")" });
                Ok(())
            }),
            Expr::Map(of) => self.checked(|printer| {
                printer.push("{");
                printer.list(of.keys.iter().zip(&of.values), |printer, (key, value)| {
                    printer.expression(key)?;
                    printer.push(": ");
                    printer.expression(value)
                })?;
                printer.push("}");
                Ok(())
            }),
        }
    }

    /// Prints what `.`, `[` or `(` follows. Elsewhere an operand needs no parentheses, since it has its own or ends with a
    /// filter, which binds more tightly than operators.
    fn primary(&mut self, expression: &ast::Expr<'_>) -> Printed {
        use ast::Expr;
        if matches!(expression, Expr::Var(_) | Expr::GetAttr(_) | Expr::GetItem(_)) {
            return self.expression(expression);
        }
        self.push("(");
        self.expression(expression)?;
        self.push(")");
        Ok(())
    }

    fn binary(&mut self, of: &ast::Spanned<ast::BinOp<'_>>) -> Printed {
        use ast::BinOpKind;
        let operator = match of.op {
            BinOpKind::Add => return self.chain(of, " + "),
            BinOpKind::Concat => return self.chain(of, " ~ "),
            BinOpKind::Mul => {
                let _ = write!(self.out, "{MULTIPLY}(");
                self.expression(&of.left)?;
                self.push(", ");
                self.expression(&of.right)?;
                self.push(")");
                return Ok(());
            }
            BinOpKind::Eq => " == ",
            BinOpKind::Ne => " != ",
            BinOpKind::Lt => " < ",
            BinOpKind::Lte => " <= ",
            BinOpKind::Gt => " > ",
            BinOpKind::Gte => " >= ",
            BinOpKind::ScAnd => return self.conditions(of, " and "),
            BinOpKind::ScOr => return self.conditions(of, " or "),
            BinOpKind::Sub => " - ",
            BinOpKind::Div => " / ",
            BinOpKind::FloorDiv => " // ",
            BinOpKind::Rem => " % ",
            BinOpKind::Pow => " ** ",
            BinOpKind::In => " in ",
        };
        self.push("(");
        self.expression(&of.left)?;
        self.push(operator);
        self.expression(&of.right)?;
        self.push(")");
        Ok(())
    }

    /// Prints `a + b + …`, with a check after every [`CHAIN`] operands.
    fn chain(&mut self, of: &ast::BinOp<'_>, name: &str) -> Printed {
        let (first, operands) = left_operands(of);
        let groups = operands.chunks(CHAIN);
        self.push(&"(".repeat(groups.len()));
        self.expression(first)?;
        for group in groups {
            for operand in group {
                self.push(name);
                self.expression(operand)?;
            }
            let _ = write!(self.out, ")|{CHECK}");
        }
        Ok(())
    }

    /// Prints `a and b and …`.
    fn conditions(&mut self, of: &ast::BinOp<'_>, name: &str) -> Printed {
        let (first, operands) = left_operands(of);
        self.push("(");
        self.expression(first)?;
        for operand in operands {
            self.push(name);
            self.expression(operand)?;
        }
        self.push(")");
        Ok(())
    }

    /// Prints a chain of filters, each with a check; in `{% filter … %}` and `{% set … | … %}` its first has no operand.
    pub(super) fn filters(&mut self, expression: &ast::Expr<'_>) -> Printed {
        let ast::Expr::Filter(of) = expression else { return self.expression(expression) };
        if let Some(operand) = &of.expr {
            self.deeper(|printer| printer.filters(operand))?;
            self.push("|");
        }
        self.push(of.name);
        self.arguments_if_any(&of.args)?;
        let _ = write!(self.out, "|{CHECK}");
        Ok(())
    }

    pub(super) fn call(&mut self, of: &ast::Call<'_>) -> Printed {
        self.primary(&of.expr)?;
        self.arguments(&of.args)
    }

    fn arguments_if_any(&mut self, arguments: &[ast::CallArg<'_>]) -> Printed {
        if arguments.is_empty() { Ok(()) } else { self.arguments(arguments) }
    }

    fn arguments(&mut self, arguments: &[ast::CallArg<'_>]) -> Printed {
        self.push("(");
        self.list(arguments, |printer, argument| match argument {
            ast::CallArg::Pos(value) => printer.expression(value),
            ast::CallArg::Kwarg(name, value) => {
                let _ = write!(printer.out, "{name}=");
                printer.expression(value)
            }
            ast::CallArg::PosSplat(value) => {
                printer.push("*");
                printer.expression(value)
            }
            ast::CallArg::KwargSplat(value) => {
                printer.push("**");
                printer.expression(value)
            }
        })?;
        self.push(")");
        Ok(())
    }

    fn constant(&mut self, value: &minijinja::Value) -> Printed {
        match value.as_str() {
            Some(text) => self.string(text),
            None if value.kind() == ValueKind::None => self.push("none"),
            None => {
                // `1e300` would be an integer followed by a name.
                let _ = match f64::try_from(value.clone()) {
                    Ok(float) if !value.is_integer() && value.is_number() => {
                        write!(self.out, "{float:?}")
                    }
                    _ => write!(self.out, "{value}"),
                };
            }
        }
        Ok(())
    }

    /// Prints a string literal, on one line.
    pub(super) fn string(&mut self, text: &str) {
        // The escapes of JSON are among those of Jinja.
        let _ = write!(self.out, "{}", serde_json::Value::from(text));
    }
}

fn comparison(op: ast::CompareOpKind) -> &'static str {
    use ast::CompareOpKind;
    match op {
        CompareOpKind::Eq => " == ",
        CompareOpKind::Ne => " != ",
        CompareOpKind::Lt => " < ",
        CompareOpKind::Lte => " <= ",
        CompareOpKind::Gt => " > ",
        CompareOpKind::Gte => " >= ",
        CompareOpKind::In => " in ",
        CompareOpKind::NotIn => " not in ",
    }
}

/// The operands of a chain of one operator, without the nesting of its left ones: the first and the others.
fn left_operands<'n, 'a>(of: &'n ast::BinOp<'a>) -> (&'n ast::Expr<'a>, Vec<&'n ast::Expr<'a>>) {
    let kind = std::mem::discriminant(&of.op);
    let (mut operands, mut first) = (vec![&of.right], &of.left);
    while let ast::Expr::BinOp(left) = first
        && std::mem::discriminant(&left.op) == kind
    {
        operands.push(&left.right);
        first = &left.left;
    }
    operands.reverse();
    (first, operands)
}
