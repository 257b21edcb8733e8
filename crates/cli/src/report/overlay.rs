//! The curves of several runs in one frame, as inline SVG.

use std::fmt::Write as _;

use super::chart::{BOTTOM, Frame, HEIGHT, LEFT, POINTS, Point, RIGHT, Scale, TOP, WIDTH};
use super::chart::{axes, mean, number, span, thin};
use super::html::escape;

/// Colours that the style sheet has; further runs have the same ones, dashed.
const COLORS: usize = 8;
/// Stretches of the steps that tell their values under the pointer.
const STRETCHES: usize = 60;

/// One run's curve.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Curve<'a> {
    /// The run's place among all, which gives it its colour.
    pub(super) run: usize,
    pub(super) name: &'a str,
    /// Values in the order of the steps.
    pub(super) points: Vec<Point>,
}

/// Several curves in a frame.
#[derive(Debug, Clone, Copy)]
pub(super) struct Overlay<'a> {
    /// What is drawn, for readers of the page who do not see it.
    pub(super) title: &'a str,
    pub(super) scale: Scale,
    pub(super) curves: &'a [Curve<'a>],
}

/// The CSS classes that give a run its colour.
pub(super) fn class(run: usize) -> String {
    let dashed = if run >= COLORS { " dashed" } else { "" };
    format!("run-{}{dashed}", run % COLORS)
}

impl Overlay<'_> {
    /// The chart as an `<svg>` element.
    pub(super) fn svg(&self) -> String {
        let points = || self.curves.iter().flat_map(|curve| &curve.points);
        let ticks = self.scale.ticks(span(points().filter_map(|(_, value)| *value)));
        let frame = Frame::spanning(points().map(|(step, _)| *step), &ticks);
        let mut svg = format!(
            "<svg class=\"chart\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" \
             aria-label=\"{}\">\n",
            escape(self.title)
        );
        axes(&frame, &ticks, &mut svg);
        for curve in self.curves {
            let class = class(curve.run);
            let path = frame.path(&thin(&curve.points, POINTS));
            let _ = writeln!(svg, "<path class=\"smooth {class}\" d=\"{path}\"/>");
            let last = curve.points.iter().rev().find_map(|&(step, value)| Some((step, value?)));
            if let Some((step, value)) = last {
                let _ = writeln!(
                    svg,
                    "<circle class=\"end {class}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"3.5\"/>",
                    frame.x(step),
                    frame.y(value)
                );
            }
        }
        self.tooltips(&frame, &mut svg);
        svg.push_str("</svg>\n");
        svg
    }

    /// Invisible stretches that show each run's mean in them under the pointer.
    fn tooltips(&self, frame: &Frame, svg: &mut String) {
        let (first, last) = frame.x;
        let width = (last - first) / STRETCHES as f64;
        for stretch in 0..STRETCHES {
            let from = first + width * stretch as f64;
            let to = if stretch + 1 == STRETCHES { f64::INFINITY } else { from + width };
            let told = self.curves.iter().filter_map(|curve| {
                let within = curve.points.iter().filter(|(step, _)| (from..to).contains(step));
                let value = mean(within.filter_map(|(_, value)| *value))?;
                Some(format!("{}: {}", escape(curve.name), number(value)))
            });
            let told: Vec<String> = told.collect();
            if told.is_empty() {
                continue;
            }
            let _ = writeln!(
                svg,
                "<rect class=\"hit\" x=\"{:.1}\" y=\"{TOP}\" width=\"{:.1}\" height=\"{}\">\
                 <title>from step {}\n{}</title></rect>",
                frame.x(from),
                (WIDTH - LEFT - RIGHT) / STRETCHES as f64,
                HEIGHT - TOP - BOTTOM,
                number(from.ceil()),
                told.join("\n")
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_run_has_a_curve_of_its_own_colour_in_one_frame() {
        let curve = |run, name, high| Curve {
            run,
            name,
            points: vec![(1.0, Some(0.0)), (2.0, Some(high))],
        };
        let curves = [curve(0, "a<b", 1.0), curve(1, "c", 4.0), curve(9, "d", 2.0)];
        let svg = Overlay { title: "t", scale: Scale::FromZero, curves: &curves }.svg();
        for class in ["smooth run-0\"", "smooth run-1\"", "smooth run-1 dashed\""] {
            assert!(svg.contains(class), "{class} in {svg}");
        }
        assert!(svg.contains("a&lt;b: 0\nc: 0\nd: 0"), "{svg}");
        assert!(svg.contains(">4</text>"), "the axis spans all curves: {svg}");
    }

    #[test]
    fn nothing_to_draw_is_still_a_picture() {
        let svg = Overlay { title: "t", scale: Scale::Free, curves: &[] }.svg();
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }
}
