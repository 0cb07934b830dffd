//! The figures of a run as a picture: bars of core bytes and of time.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::figures::{Figures, Report};

const SIZE: (u32, u32) = (1000, 460);
const RACKFERRY: RGBColor = RGBColor(38, 110, 180);
const STOCK: RGBColor = RGBColor(150, 150, 150);

impl Report {
    /// Writes an SVG file.
    pub fn chart(&self, path: &Path) -> Result<()> {
        let area = SVGBackend::new(path, SIZE).into_drawing_area();
        let draw = || -> Result<(), Box<dyn std::error::Error>> {
            area.fill(&WHITE)?;
            let title = format!(
                "{} VMs, {:.1} GiB, profile {}, core link {}",
                self.vms,
                self.memory_bytes as f64 / f64::from(1 << 30),
                self.profile,
                self.core
            );
            let (left, right) =
                area.titled(&title, ("sans-serif", 20))?.split_horizontally(SIZE.0 / 2);
            panel(&left, "crossed the core link, MB", self, |one| one.core_bytes() as f64 / 1e6)?;
            panel(&right, "time, s", self, |one| one.seconds)?;
            area.present()?;
            Ok(())
        };
        draw().map_err(|error| anyhow!("cannot draw {}: {error}", path.display()))
    }
}

/// One bar for each method.
fn panel(
    area: &DrawingArea<SVGBackend<'_>, Shift>,
    caption: &str,
    report: &Report,
    figure: impl Fn(&Figures) -> f64,
) -> Result<(), Box<dyn std::error::Error>> {
    let top = report.methods.iter().map(&figure).fold(0.0, f64::max);
    let count = report.methods.len();
    let mut chart = ChartBuilder::on(area)
        .caption(caption, ("sans-serif", 16))
        .margin(10)
        .x_label_area_size(40)
        .y_label_area_size(60)
        .build_cartesian_2d(0.0..count as f64, 0.0..(top * 1.12).max(f64::MIN_POSITIVE))?;
    chart.configure_mesh().disable_x_mesh().disable_x_axis().y_max_light_lines(0).draw()?;
    chart.draw_series(report.methods.iter().enumerate().map(|(at, one)| {
        let color = if one.method.dedup().is_some() { RACKFERRY } else { STOCK };
        let at = at as f64;
        Rectangle::new([(at + 0.15, 0.0), (at + 0.85, figure(one))], color.filled())
    }))?;
    let write = |x: f64, y: f64, text: String, down: i32| {
        let style = TextStyle::from(("sans-serif", 12)).pos(Pos::new(HPos::Center, VPos::Top));
        let label = EmptyElement::at((x, y)) + Text::new(text, (0, down), style);
        chart.plotting_area().draw(&label)
    };
    for (at, one) in report.methods.iter().enumerate() {
        let (middle, value) = (at as f64 + 0.5, figure(one));
        write(middle, value, format!("{value:.1}"), -14)?;
        for (line, word) in one.method.to_string().splitn(2, ' ').enumerate() {
            write(middle, 0.0, word.into(), 6 + 13 * line as i32)?;
        }
    }
    Ok(())
}
