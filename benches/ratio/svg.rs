//! The ratios as a picture: one bar for each row. Pure.

use std::fmt::Write as _;

/// One bar.
#[derive(Debug, Clone, PartialEq)]
pub struct Bar {
    pub label: String,
    /// The length; 1 is as fast as what it is compared with.
    pub ratio: f64,
    /// Where the mark of what is wanted stands.
    pub target: Option<f64>,
}

const LEFT: f64 = 330.0;
/// Of a bar of ratio 1.
const UNIT: f64 = 260.0;
/// Bars beyond it are cut, with their number beside them.
const LONGEST: f64 = 1.25;
const STEP: usize = 26;
const TOP: usize = 58;

/// Colours that can be read on white and on black; the ones for dark pages win where the reader's are dark.
const STYLE: &str = "text{font:13px system-ui,sans-serif;fill:#1f2328}.small{font-size:11px;fill:#59636e}\
.bar{fill:#0969da}.line{stroke:#59636e;stroke-width:1}.mark{stroke:#bc4c00;stroke-width:2}\
@media (prefers-color-scheme:dark){text{fill:#f0f6fc}.small{fill:#9198a1}.bar{fill:#4493f8}.line{stroke:#9198a1}\
.mark{stroke:#f0883e}}";

/// The picture as the text of an SVG file.
pub fn draw(title: &str, note: &str, bars: &[Bar]) -> String {
    let height = TOP + bars.len() * STEP + 14;
    let width = LEFT + UNIT * LONGEST + 70.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
         height=\"{height}\" role=\"img\">\n<title>{}</title>\n<style>{STYLE}</style>\n\
         <text x=\"8\" y=\"20\" font-weight=\"600\">{}</text>\n<text x=\"8\" y=\"40\" class=\"small\">{}</text>\n",
        escaped(title),
        escaped(title),
        escaped(note)
    );
    for (index, bar) in bars.iter().enumerate() {
        draw_bar(&mut svg, TOP + index * STEP, bar);
    }
    let one = LEFT + UNIT;
    let bottom = TOP + bars.len() * STEP;
    line(&mut svg, "line", one, TOP - 6, bottom);
    svg.push_str("</svg>\n");
    svg
}

fn draw_bar(svg: &mut String, top: usize, bar: &Bar) {
    let length = UNIT * bar.ratio.clamp(0.0, LONGEST);
    let (text, end) = (top + 14, LEFT + length + 6.0);
    // Writing to a String does not fail.
    let _written = writeln!(
        svg,
        "<text x=\"{}\" y=\"{text}\" text-anchor=\"end\">{}</text>\n\
         <rect class=\"bar\" x=\"{LEFT}\" y=\"{top}\" width=\"{length:.1}\" height=\"18\" rx=\"2\"/>\n\
         <text x=\"{end:.1}\" y=\"{text}\">{:.2}</text>",
        LEFT - 8.0,
        escaped(&bar.label),
        bar.ratio
    );
    if let Some(target) = bar.target {
        line(svg, "mark", LEFT + UNIT * target.min(LONGEST), top - 2, top + 20);
    }
}

fn line(svg: &mut String, class: &str, x: f64, from: usize, to: usize) {
    let _written = writeln!(svg, "<line class=\"{class}\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{from}\" y2=\"{to}\"/>");
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
