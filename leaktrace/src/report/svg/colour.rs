//! The colour of a frame: the hue is its module's, the same in every picture; the shade tells neighbours apart. Pure.

use inferno::flamegraph::color::Color;

/// Of frames without a module.
pub(super) const NONE: Color = Color { r: 214, g: 214, b: 210 };

/// Degrees on the circle of hues.
const ORANGE: f64 = 30.0;

/// The colour of the function `name` in `module`. Orange is for the program itself.
pub(super) fn of(module: &str, name: &str, is_program: bool) -> Color {
    let shade = (hash(name) % 1000) as f64 / 1000.0;
    if module.is_empty() {
        return NONE;
    }
    let saturation = 0.62 + 0.16 * shade;
    let lightness = 0.66 + 0.10 * shade;
    if is_program {
        return rgb(ORANGE + 12.0 * shade, saturation + 0.16, lightness);
    }
    // Sixteen hues between yellow-green and pink: well apart from orange, and from each other.
    let hue = 75.0 + 17.0 * (hash(module) % 16) as f64;
    rgb(hue, saturation - 0.10, lightness + 0.02)
}

/// FNV-1a with its bits mixed once more: stable over machines and versions.
fn hash(text: &str) -> u64 {
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    hash ^ (hash >> 29)
}

/// From hue in degrees, saturation and lightness from 0 to 1.
fn rgb(hue: f64, saturation: f64, lightness: f64) -> Color {
    let reach = saturation * lightness.min(1.0 - lightness);
    let channel = |offset: f64| {
        let k = (offset + hue / 30.0) % 12.0;
        let value = lightness - reach * (k - 3.0).min(9.0 - k).clamp(-1.0, 1.0);
        (255.0 * value).round() as u8
    };
    Color {
        r: channel(0.0),
        g: channel(8.0),
        b: channel(4.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hues_are_right() {
        let [red, green, blue, white] = [
            rgb(0.0, 1.0, 0.5),
            rgb(120.0, 1.0, 0.5),
            rgb(240.0, 1.0, 0.5),
            rgb(90.0, 0.3, 1.0),
        ];
        assert_eq!((red.r, red.g, red.b), (255, 0, 0));
        assert_eq!((green.r, green.g, green.b), (0, 255, 0));
        assert_eq!((blue.r, blue.g, blue.b), (0, 0, 255));
        assert_eq!((white.r, white.g, white.b), (255, 255, 255));
    }

    #[test]
    fn black_text_is_readable_on_every_colour() {
        for module in 0..200 {
            for name in 0..20 {
                let colour = of(&format!("lib{module}.so"), &format!("f{name}"), module == 0);
                let luma = 0.2126 * f64::from(colour.r) + 0.7152 * f64::from(colour.g) + 0.0722 * f64::from(colour.b);
                assert!(luma > 110.0, "lib{module}.so f{name}: {colour:?}");
            }
        }
    }

    #[test]
    fn a_module_keeps_its_colour() {
        assert_eq!(of("/lib/libc.so.6", "f", false), of("/lib/libc.so.6", "f", false));
        assert_ne!(of("/lib/libc.so.6", "f", false), of("/lib/libz.so.1", "f", false));
        assert_ne!(of("/lib/libc.so.6", "f", false), of("/lib/libc.so.6", "f", true));
    }
}
