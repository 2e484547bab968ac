//! `policy`: the quota of every length, as a table or as a curve.

use std::fmt::Write as _;
use std::path::Path;

use pam_prefixquota::decide::wait_when_full;
use pam_prefixquota::quota::Curve;
use pam_prefixquota::source::Family;
use serde_json::json;

use super::{Context, Report, bar, shown_wait, table};

/// `policy`.
pub fn policy(context: &Context) -> Report {
    let settings = context.settings();
    let mut rows = Vec::new();
    let mut json = Vec::new();
    for family in Family::ALL {
        let curve = settings.curve(family);
        for (length, quota) in points(curve) {
            let wait = wait_when_full(quota, settings.pace());
            rows.push([
                format!("IPv{} /{length}", family.number()),
                quota.to_string(),
                shown_wait(wait),
                format!("{:.0}", 86_400_000.0 / wait.max(1) as f64),
            ]);
            json.push(json!({"family": family.number(), "length": length, "quota": quota}));
        }
    }
    let header = ["prefix", "quota", "next try when full", "tries a day then"];
    let mut text = table(&header, rows);
    for shared in &settings.multiply {
        let _ = write!(text, "\nInside {}: {} times the quota.", shared.prefix, shared.times);
    }
    Report::new(text, json.into())
}

/// `policy --plot`, which draws for people; JSON is the table.
pub fn plot(context: &Context, file: Option<&Path>) -> Result<Report, String> {
    let curves = Family::ALL.map(|family| context.settings().curve(family));
    let json = policy(context).json;
    if let Some(file) = file {
        std::fs::write(file, svg(&curves)).map_err(|e| format!("{}: {e}", file.display()))?;
        return Ok(Report::new(format!("Drew the curves into {}.", file.display()), json));
    }
    let ink = if bar::is_unicode_terminal() == Some(true) { &BRAILLE } else { &ASCII };
    let drawn = curves.map(|curve| drawing(curve, ink));
    Ok(Report::new(drawn.join("\n"), json))
}

/// Every length with its quota, narrowest first.
fn points(curve: &Curve) -> impl Iterator<Item = (u8, u32)> + '_ {
    (curve.widest..=curve.family.bits()).rev().map(|length| (length, curve.quota(length)))
}

/// What a curve is drawn with.
struct Ink {
    /// Dots in one character, across and down.
    dots: (usize, usize),
    /// The character for a set of dots, numbered by line and then by column.
    character: fn(u8) -> char,
    /// The axes and their corner.
    axes: [char; 3],
}

const ASCII: Ink = Ink {
    dots: (1, 1),
    character: |dots| if dots == 0 { ' ' } else { '*' },
    axes: ['|', '-', '+'],
};

const BRAILLE: Ink = Ink {
    dots: (2, 4),
    character: |dots| {
        // Unicode numbers the dots down the columns, but the lowest line last.
        let order = [0, 3, 1, 4, 2, 5, 6, 7];
        let places = order.iter().enumerate().filter(|(dot, _)| dots >> dot & 1 == 1);
        let offset: u32 = places.map(|(_, place)| 1 << place).sum();
        if offset == 0 { ' ' } else { char::from_u32(0x2800 + offset).unwrap_or('*') }
    },
    axes: ['│', '─', '└'],
};

/// Characters of the drawing, without its axes.
const WIDTH: usize = 64;
const HEIGHT: usize = 16;
/// Columns left of the axis.
const MARGIN: usize = 8;

/// A curve with its axes: the length from the narrowest to the widest, the quota from 0.
fn drawing(curve: &Curve, ink: &Ink) -> String {
    let (across, down) = (WIDTH * ink.dots.0, HEIGHT * ink.dots.1);
    let top = nice(curve.quota(curve.widest));
    let bits = curve.family.bits();
    let range = usize::from(bits - curve.widest).max(1);
    let mut cells = vec![[0_u8; WIDTH]; HEIGHT];
    let row_of = |x: usize| {
        let length = usize::from(bits).saturating_sub((x * range + across / 2) / across.max(2));
        let quota = curve.quota(u8::try_from(length).unwrap_or(0));
        let height = (f64::from(quota) / f64::from(top) * (down - 1) as f64).round() as usize;
        (down - 1).saturating_sub(height)
    };
    for x in 0..across {
        // Down to where the column before was, so that no gap is left.
        let (from, to) = (row_of(x), row_of(x.saturating_sub(1)));
        for y in from..=from.max(to.saturating_sub(1)) {
            let dot = y % ink.dots.1 * ink.dots.0 + x % ink.dots.0;
            let cell = cells.get_mut(y / ink.dots.1).and_then(|row| row.get_mut(x / ink.dots.0));
            cell.into_iter().for_each(|cell| *cell |= 1 << dot);
        }
    }
    let [side, bottom, corner] = ink.axes;
    let mut text = format!("IPv{}: failures that a prefix may have\n", curve.family.number());
    for (y, row) in cells.iter().enumerate() {
        let value = (y % 4 == 0).then(|| f64::from(top) * (HEIGHT - y) as f64 / HEIGHT as f64);
        let label = value.map_or(String::new(), |value| format!("{value:.0}"));
        let line: String = row.iter().map(|dots| (ink.character)(*dots)).collect();
        let _ = writeln!(text, "{label:>width$} {side}{}", line.trim_end(), width = MARGIN - 2);
    }
    let _ =
        writeln!(text, "{:>w$} {corner}{}", 0, bottom.to_string().repeat(WIDTH), w = MARGIN - 2);
    let mut labels = " ".repeat(MARGIN);
    for part in 0..=4 {
        let length = usize::from(bits) - range * part / 4;
        let column = (MARGIN + WIDTH * part / 4).saturating_sub(2);
        labels = format!("{labels:<column$}/{length}");
    }
    text + &labels + "\n"
}

/// The next number of two digits that is easy to divide by four.
fn nice(most: u32) -> u32 {
    let digit = 10_u32.saturating_pow(most.max(10).ilog10() - 1);
    most.div_ceil(4 * digit).saturating_mul(4 * digit)
}

/// A panel's size and the space around it, in pixels.
const PANEL: (f64, f64) = (320.0, 260.0);
const SPACE: (f64, f64) = (64.0, 44.0);

/// Both curves side by side, as a picture.
fn svg(curves: &[&Curve]) -> String {
    let (width, height) =
        ((PANEL.0 + SPACE.0) * curves.len() as f64 + 24.0, PANEL.1 + 2.0 * SPACE.1 + 12.0);
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         width=\"{width}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <title>prefixquota: failures that a prefix may have</title>\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n"
    );
    for (panel, curve) in curves.iter().enumerate() {
        let left = SPACE.0 + (PANEL.0 + SPACE.0) * panel as f64;
        text += &svg_panel(curve, left, SPACE.1);
    }
    text + "</svg>\n"
}

fn svg_panel(curve: &Curve, left: f64, top: f64) -> String {
    let most = nice(curve.quota(curve.widest));
    let bits = curve.family.bits();
    let range = f64::from(bits - curve.widest).max(1.0);
    let x = |length: f64| left + (f64::from(bits) - length) / range * PANEL.0;
    let y = |quota: f64| top + PANEL.1 * (1.0 - quota / f64::from(most));
    let (right, bottom) = (left + PANEL.0, top + PANEL.1);
    let mut text = String::new();
    for part in 0..=4 {
        let quota = f64::from(most * part / 4);
        let length = (f64::from(bits) - range * f64::from(part) / 4.0).round();
        let (x, y) = (x(length), y(quota));
        let _ = writeln!(
            text,
            "<path d=\"M{left:.1} {y:.1}H{right:.1}M{x:.1} {top:.1}V{bottom:.1}\" stroke=\"#ddd\"/>\n\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{quota}</text>\n\
             <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">/{length}</text>",
            left - 6.0,
            y + 4.0,
            bottom + 16.0
        );
    }
    let line: Vec<String> = points(curve)
        .map(|(length, quota)| format!("{:.1},{:.1}", x(f64::from(length)), y(f64::from(quota))))
        .collect();
    let middle = left + PANEL.0 / 2.0;
    let _ = writeln!(
        text,
        "<path d=\"M{left:.1} {top:.1}V{bottom:.1}H{right:.1}\" fill=\"none\" stroke=\"black\"/>\n\
         <polyline points=\"{}\" fill=\"none\" stroke=\"#1f6feb\" stroke-width=\"2\"/>\n\
         <text x=\"{middle:.1}\" y=\"{:.1}\" text-anchor=\"middle\" font-size=\"14\">IPv{}: \
         failures that a prefix may have</text>\n\
         <text x=\"{middle:.1}\" y=\"{:.1}\" text-anchor=\"middle\">prefix length</text>",
        line.join(" "),
        top - 14.0,
        curve.family.number(),
        bottom + 36.0
    );
    text
}
