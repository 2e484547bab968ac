//! `replay --plot`: attempts and denials over time, as a picture.

use std::fmt::Write as _;

use super::summary::{PARTS, Summary};
use crate::cli::show::local_time;
use crate::cli::shown_wait;

/// The picture and the field inside, in pixels.
const WIDTH: usize = 980;
const HEIGHT: usize = 330;
const LEFT: usize = 70;
const TOP: usize = 50;
const FIELD: (usize, usize) = (PARTS * 6 + PARTS, 210);
/// How many times stand at the foot.
const TIMES: usize = 5;

/// Draws what `summary` has counted.
pub fn draw(summary: &Summary) -> String {
    let (first, last) = summary.span.unwrap_or((0, 0));
    let part = (last - first) / PARTS as i64;
    let top = summary.parts.iter().map(|part| part.attempts).max().unwrap_or(0).max(1);
    let height = |count: u64| count as f64 * FIELD.1 as f64 / top as f64;
    let foot = TOP + FIELD.1;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <title>Attempts and denials</title>\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n"
    );
    legend(&mut svg);
    for (index, part) in summary.parts.iter().enumerate() {
        let x = LEFT + index * FIELD.0 / PARTS;
        let mut bar = |count: u64, colour: &str| {
            if count > 0 {
                let (y, tall) = (foot as f64 - height(count), height(count));
                let _ = writeln!(
                    svg,
                    "<rect x=\"{x}\" y=\"{y:.1}\" width=\"6\" height=\"{tall:.1}\" fill=\"{colour}\"/>"
                );
            }
        };
        bar(part.attempts, ADMITTED);
        bar(part.denied, DENIED);
        if part.accepted_denied > 0 {
            let (x, y) = (x + 3, TOP - 6);
            let _ = writeln!(svg, "<circle cx=\"{x}\" cy=\"{y}\" r=\"3\" fill=\"{RIGHT}\"/>");
        }
    }
    axes(&mut svg, top, foot);
    for index in 0..=TIMES {
        let x = LEFT + index * FIELD.0 / TIMES;
        let at = first + (last - first) * index as i64 / TIMES as i64;
        // Without seconds.
        let time = local_time(at).chars().take(16).collect::<String>();
        let y = foot + 18;
        let _ = writeln!(svg, "<text x=\"{x}\" y=\"{y}\" text-anchor=\"middle\">{time}</text>");
    }
    let (x, y) = (LEFT + FIELD.0 / 2, foot + 42);
    let each = shown_wait(part.max(1));
    let _ = writeln!(
        svg,
        "<text x=\"{x}\" y=\"{y}\" text-anchor=\"middle\">time (one bar: {each})</text>\n</svg>"
    );
    svg
}

const ADMITTED: &str = "#7a9cc6";
const DENIED: &str = "#c0504d";
const RIGHT: &str = "#222222";

fn legend(svg: &mut String) {
    let entries = [(ADMITTED, "attempts"), (DENIED, "denied"), (RIGHT, "a right login denied")];
    for (index, (colour, name)) in entries.into_iter().enumerate() {
        let x = LEFT + index * 110;
        let _ = writeln!(
            svg,
            "<rect x=\"{x}\" y=\"14\" width=\"10\" height=\"10\" fill=\"{colour}\"/>\
             <text x=\"{}\" y=\"24\">{name}</text>",
            x + 16
        );
    }
}

fn axes(svg: &mut String, top: u64, foot: usize) {
    let right = LEFT + FIELD.0;
    for (count, y) in [(0, foot), (top / 2, foot - FIELD.1 / 2), (top, TOP)] {
        let _ = writeln!(
            svg,
            "<path d=\"M{} {y}H{LEFT}\" stroke=\"black\"/>\
             <text x=\"{}\" y=\"{}\" text-anchor=\"end\">{count}</text>",
            LEFT - 5,
            LEFT - 8,
            y + 4
        );
    }
    let middle = TOP + FIELD.1 / 2;
    let _ = writeln!(
        svg,
        "<path d=\"M{LEFT} {TOP}V{foot}H{right}\" fill=\"none\" stroke=\"black\"/>\n\
         <text transform=\"translate(16 {middle}) rotate(-90)\" text-anchor=\"middle\">attempts</text>"
    );
}
