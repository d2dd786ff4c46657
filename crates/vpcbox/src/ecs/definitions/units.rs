//! Sizes of tasks as callers write them: `1024`, `1 vCPU`, `.5 vcpu`; `2048`, `2GB`, `.5 GB`.

/// CPU units or MiB from a text; `unit`, in lower case, counts for 1024.
pub(in crate::ecs) fn read(text: &str, unit: &str) -> Option<u64> {
    let text = text.trim().to_ascii_lowercase();
    let Some(number) = text.strip_suffix(unit) else {
        return text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?;
    };
    let (whole, fraction) = match number.trim_end().split_once('.') {
        Some((whole, fraction)) => (whole, fraction),
        None => (number.trim_end(), ""),
    };
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    // Three places are as fine as the sizes are; more would not be exact.
    if !digits(whole) || !digits(fraction) || fraction.len() > 3 || whole.len() + fraction.len() == 0 {
        return None;
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let thousandths: u64 = format!("{fraction:0<3}").parse().ok()?;
    whole.checked_mul(1024)?.checked_add(thousandths * 1024 / 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_numbers_or_numbers_of_a_unit() {
        let cpu = |text| read(text, "vcpu");
        for (text, units) in
            [("256", 256), ("1 vCPU", 1024), (".25vcpu", 256), ("0.5 VCPU", 512), (" 2vcpu ", 2048)]
        {
            assert_eq!(cpu(text), Some(units), "{text}");
        }
        for text in
            ["", "vcpu", ".", ". vcpu", "-1", "1.5", "1e3", "1.0001 vcpu", "1 GB", "99999999999999999 vcpu"]
        {
            assert_eq!(cpu(text), None, "{text}");
        }
    }
}
