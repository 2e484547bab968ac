//! Bar charts that can be read in light and in dark.

use std::fmt::Write as _;

/// Panels below each other, on one scale.
pub struct Chart {
    pub title: String,
    /// What the numbers are.
    pub axis: String,
    /// In place of from zero in even steps, from one in even ratios.
    pub ratios: bool,
    /// The names of the bars of a group.
    pub series: Vec<String>,
    pub panels: Vec<Panel>,
}

pub struct Panel {
    pub title: String,
    pub groups: Vec<Group>,
}

/// Bars that belong together: one for each of the series, or none.
pub struct Group {
    pub label: String,
    pub bars: Vec<Option<f64>>,
    /// A line across the first bar, which it is not to pass.
    pub limit: Option<f64>,
}

/// In pixels.
const WIDTH: f64 = 860.0;
const LEFT: f64 = 230.0;
const RIGHT: f64 = 70.0;
const BAR: f64 = 13.0;
const GAP: f64 = 10.0;
const HEAD: f64 = 62.0;
const PANEL_HEAD: f64 = 26.0;
const PANEL_FOOT: f64 = 46.0;

const STYLE: &str = "\
text { fill: #1f2328 } .grid { stroke: #8b949e; stroke-opacity: .35 } .limit { stroke: #d1242f; stroke-width: 2 } \
.s0 { fill: #0969da } .s1 { fill: #bf8700 } .s2 { fill: #1a7f5a } .s3 { fill: #8250df } .s4 { fill: #6e7781 } \
@media (prefers-color-scheme: dark) { text { fill: #e6edf3 } .limit { stroke: #ff7b72 } .s0 { fill: #58a6ff } \
.s1 { fill: #e3b341 } .s2 { fill: #56d364 } .s3 { fill: #bc8cff } .s4 { fill: #8b949e } }";

impl Chart {
    pub fn draw(&self) -> String {
        let height = HEAD + self.panels.iter().map(Panel::height).sum::<f64>();
        let title = escaped(&self.title);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
             font-family=\"sans-serif\" font-size=\"12\">\n\
             <title>{title}</title>\n<style>{STYLE}</style>\n\
             <text x=\"10\" y=\"22\" font-size=\"16\">{title}</text>\n"
        );
        self.legend(&mut svg);
        let scale = Scale::up_to(self.highest(), self.ratios);
        let mut top = HEAD;
        for panel in &self.panels {
            panel.draw(&mut svg, top, &scale, &self.axis);
            top += panel.height();
        }
        svg + "</svg>\n"
    }

    fn legend(&self, svg: &mut String) {
        let limit = self.panels.iter().flat_map(|panel| &panel.groups).any(|g| g.limit.is_some());
        for (i, name) in self.series.iter().enumerate() {
            let x = 10 + i * 130;
            let (name, text) = (escaped(name), x + 15);
            let _ = writeln!(
                svg,
                "<rect class=\"s{i}\" x=\"{x}\" y=\"36\" width=\"10\" height=\"10\"/>\
                 <text x=\"{text}\" y=\"45\">{name}</text>"
            );
        }
        if limit {
            let x = 10 + self.series.len() * 130;
            let _ = writeln!(
                svg,
                "<path class=\"limit\" d=\"M{x} 34V48\"/><text x=\"{}\" y=\"45\">limit</text>",
                x + 8
            );
        }
    }

    fn highest(&self) -> f64 {
        let groups = self.panels.iter().flat_map(|panel| &panel.groups);
        let values = groups.flat_map(|group| group.bars.iter().flatten().chain(&group.limit));
        values.copied().fold(1.0, f64::max)
    }
}

impl Panel {
    fn height(&self) -> f64 {
        PANEL_HEAD + self.groups.iter().map(Group::height).sum::<f64>() + PANEL_FOOT
    }

    fn draw(&self, svg: &mut String, top: f64, scale: &Scale, axis: &str) {
        let foot = top + self.height() - PANEL_FOOT;
        let (x, y) = (LEFT, top + 14.0);
        let _ = writeln!(
            svg,
            "<text x=\"{x}\" y=\"{y}\" font-weight=\"bold\">{}</text>",
            escaped(&self.title)
        );
        scale.draw(svg, top + PANEL_HEAD - 4.0, foot, axis);
        let mut y = top + PANEL_HEAD;
        for group in &self.groups {
            group.draw(svg, y, scale);
            y += group.height();
        }
    }
}

impl Group {
    fn height(&self) -> f64 {
        self.bars.len() as f64 * BAR + GAP
    }

    fn draw(&self, svg: &mut String, top: f64, scale: &Scale) {
        let tall = self.bars.len() as f64 * BAR;
        let (x, y) = (LEFT - 10.0, top + tall / 2.0 + 4.0);
        let label = escaped(&self.label);
        let _ = writeln!(svg, "<text x=\"{x}\" y=\"{y}\" text-anchor=\"end\">{label}</text>");
        for (i, bar) in self.bars.iter().enumerate() {
            let Some(value) = *bar else { continue };
            let (y, end) = (top + i as f64 * BAR, scale.x(value));
            let (width, thick) = (end - LEFT, BAR - 2.0);
            let limit = self.limit.filter(|_| i == 0).map_or(0.0, |limit| scale.x(limit));
            let (text, base) = (end.max(limit) + 6.0, y + 10.0);
            let shown = short(value);
            let _ = writeln!(
                svg,
                "<rect class=\"s{i}\" x=\"{LEFT}\" y=\"{y}\" width=\"{width:.1}\" height=\"{thick}\"/>\
                 <text x=\"{text:.1}\" y=\"{base}\" font-size=\"10\">{shown}</text>"
            );
        }
        if let Some(limit) = self.limit {
            let (x, end) = (scale.x(limit), top + BAR - 1.0);
            let _ = writeln!(svg, "<path class=\"limit\" d=\"M{x:.1} {top}V{end}\"/>");
        }
    }
}

/// Its marks, the last of which is not below the highest value.
struct Scale {
    marks: Vec<f64>,
    top: f64,
    ratios: bool,
}

impl Scale {
    fn up_to(highest: f64, ratios: bool) -> Scale {
        // 1, 2, 5, 10, 20, ... as marks, or as the step between them.
        let round = (0..).map(|i| [1.0, 2.0, 5.0][i % 3] * 10f64.powf((i / 3) as f64));
        let marks: Vec<f64> = if ratios {
            let mut round = round;
            let mut marks = vec![1.0];
            while marks[marks.len() - 1] < highest {
                marks.extend(round.find(|&mark| mark > marks[marks.len() - 1]));
            }
            marks
        } else {
            let step = round.into_iter().find(|step| highest / step <= 6.0).unwrap_or(highest);
            (0..=(highest / step).ceil() as u32).map(|i| f64::from(i) * step).collect()
        };
        let top = marks[marks.len() - 1];
        Scale { marks, top, ratios }
    }

    fn x(&self, value: f64) -> f64 {
        let share =
            if self.ratios { value.max(1.0).ln() / self.top.ln() } else { value / self.top };
        LEFT + share * (WIDTH - LEFT - RIGHT)
    }

    fn draw(&self, svg: &mut String, top: f64, foot: f64, axis: &str) {
        for &mark in &self.marks {
            let (x, y) = (self.x(mark), foot + 14.0);
            let shown = short(mark);
            let _ = writeln!(
                svg,
                "<path class=\"grid\" d=\"M{x:.1} {top}V{foot}\"/>\
                 <text x=\"{x:.1}\" y=\"{y}\" text-anchor=\"middle\">{shown}</text>"
            );
        }
        let (x, y) = (LEFT + (WIDTH - LEFT - RIGHT) / 2.0, foot + 30.0);
        let axis = escaped(axis);
        let _ = writeln!(svg, "<text x=\"{x}\" y=\"{y}\" text-anchor=\"middle\">{axis}</text>");
    }
}

/// Two digits or more, and no more than that after the point.
fn short(value: f64) -> String {
    if value.fract() == 0.0 || value >= 10.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.1}")
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
