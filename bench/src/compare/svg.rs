//! Small plots as SVG: lines over two axes, and bars. Only draws what it is given.

use std::fmt::Write;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 200.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 50.0;
const COLORS: [&str; 9] =
    ["#7f7f7f", "#2ca02c", "#98df8a", "#1f77b4", "#17becf", "#9467bd", "#d62728", "#ff7f0e", "#8c564b"];

/// One line of a plot: its name, and points in rising order of x.
pub type Line = (String, Vec<(f64, f64)>);

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn head(title: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n<text x=\"{LEFT}\" y=\"22\" font-size=\"15\">{}</text>\n",
        escape(title)
    )
}

fn label(out: &mut String, x: f64, y: f64, anchor: &str, text: &str) {
    let _ = writeln!(out, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>", escape(text));
}

/// Powers of ten that enclose the positive values.
fn decades(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (mut low, mut high) = (f64::MAX, f64::MIN_POSITIVE);
    for value in values.filter(|value| *value > 0.0 && value.is_finite()) {
        (low, high) = (low.min(value), high.max(value));
    }
    if low > high {
        return (0.0, 1.0);
    }
    (low.log10().floor(), high.log10().ceil().max(low.log10().floor() + 1.0))
}

/// Lines with a logarithmic y axis; `ticks` are marks of the x axis and their labels.
pub fn lines(title: &str, y_name: &str, ticks: &[(f64, String)], lines: &[Line]) -> String {
    let mut out = head(title);
    let points = || lines.iter().flat_map(|(_, points)| points.iter().copied());
    let (y_low, y_high) = decades(points().map(|point| point.1));
    let xs = || points().map(|point| point.0).chain(ticks.iter().map(|tick| tick.0));
    let (x_low, x_high) = (xs().fold(f64::MAX, f64::min), xs().fold(f64::MIN, f64::max));
    let (plot_width, plot_height) = (WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM);
    let x = |value: f64| LEFT + (value - x_low) / (x_high - x_low).max(1e-9) * plot_width;
    let y = |value: f64| TOP + (y_high - value.max(1e-9).log10()) / (y_high - y_low) * plot_height;
    for decade in y_low as i32..=y_high as i32 {
        let at = y(10f64.powi(decade));
        let right = LEFT + plot_width;
        let _ = writeln!(out, "<path d=\"M{LEFT} {at:.1}H{right:.1}\" stroke=\"#ddd\"/>");
        label(&mut out, LEFT - 6.0, at + 4.0, "end", &format!("{}", 10f64.powi(decade)));
    }
    for (at, text) in ticks {
        label(&mut out, x(*at), HEIGHT - BOTTOM + 18.0, "middle", text);
    }
    label(&mut out, LEFT, TOP - 4.0, "start", y_name);
    for (index, (name, points)) in lines.iter().enumerate() {
        let color = COLORS[index % COLORS.len()];
        let mut path = String::new();
        for (number, (px, py)) in points.iter().filter(|point| point.1 > 0.0).enumerate() {
            let _ = write!(path, "{}{:.1} {:.1}", if number == 0 { "M" } else { "L" }, x(*px), y(*py));
        }
        let _ = writeln!(out, "<path d=\"{path}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"2\"/>");
        legend(&mut out, index, name, color);
    }
    out + "</svg>\n"
}

fn legend(out: &mut String, index: usize, name: &str, color: &str) {
    let (x, y) = (WIDTH - RIGHT + 14.0, TOP + 18.0 * index as f64);
    let _ = writeln!(out, "<rect x=\"{x}\" y=\"{y:.1}\" width=\"12\" height=\"12\" fill=\"{color}\"/>");
    label(out, x + 18.0, y + 10.0, "start", name);
}

/// Bars with a logarithmic scale, each with its value.
pub fn bars(title: &str, unit: &str, bars: &[(String, f64)]) -> String {
    let mut out = head(&format!("{title}, {unit}"));
    let (low, high) = decades(bars.iter().map(|bar| bar.1));
    let step = (HEIGHT - TOP - 20.0) / bars.len().max(1) as f64;
    for (index, (name, value)) in bars.iter().enumerate() {
        let y = TOP + step * index as f64;
        let share = ((value.max(1e-9).log10() - low) / (high - low)).clamp(0.01, 1.0);
        let width = share * (WIDTH - 330.0);
        let color = COLORS[index % COLORS.len()];
        let height = step * 0.7;
        let _ = writeln!(
            out,
            "<rect x=\"190\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"{color}\"/>"
        );
        label(&mut out, 182.0, y + step * 0.5, "end", name);
        label(&mut out, 196.0 + width, y + step * 0.5, "start", &format!("{value:.3}"));
    }
    out + "</svg>\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every tag that opens also closes, and no number is missing.
    fn well_formed(svg: &str) {
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n") && !svg.contains("NaN"), "{svg}");
        assert_eq!(svg.matches('<').count(), svg.matches('>').count());
        let open = svg.matches("<text ").count();
        assert_eq!(open, svg.matches("</text>").count());
        assert_eq!(svg.matches("<rect ").count() + svg.matches("<path ").count(), svg.matches("/>").count());
    }

    #[test]
    fn plots_are_well_formed() {
        let line = ("a < b & c".to_string(), vec![(0.0, 10.0), (1.0, 1000.0)]);
        well_formed(&lines("p", "us", &[(0.0, "50 %".into())], &[line, ("empty".into(), vec![])]));
        well_formed(&lines("p", "us", &[], &[]));
        well_formed(&bars("CPU", "s/GB", &[("a".into(), 0.3), ("b".into(), 4.0)]));
        well_formed(&bars("CPU", "s/GB", &[]));
    }
}
