//! A volume group as its description tells it, and what of it lies on one physical volume.
//!
//! Source: LVM2's `lib/format_text/{export,import_vsn1,flags}.c` and the `text_import` functions of
//! its segment types.

use super::super::doubt::{Doubt, ensure};
use super::disk::SECTOR;
use super::text::{Section, Value};
use std::collections::HashMap;

/// What a group is described by. Historical volumes have no extents.
const PARTS: [&str; 3] = [
    "physical_volumes",
    "logical_volumes",
    "historical_logical_volumes",
];
/// States of a group that say nothing against reading it.
const GROUP_STATES: [&str; 10] = [
    "RESIZEABLE",
    "READ",
    "WRITE",
    "WRITE_LOCKED",
    "EXPORTED",
    "PARTIAL",
    "CLUSTERED",
    "SHARED",
    "PVMOVE",
    "NOAUTOACTIVATE",
];
/// States of a logical volume that is what its segments say, and is not being changed.
const PLAIN_STATES: [&str; 6] = [
    "READ",
    "WRITE",
    "VISIBLE",
    "FIXED_MINOR",
    "ACTIVATION_SKIP",
    "NOAUTOACTIVATE",
];

/// What the description says that matters for one physical volume.
#[derive(Debug)]
pub(super) struct Group<'t> {
    pub(super) name: &'t str,
    /// How many physical volumes it has.
    pub(super) physical_volumes: usize,
    /// Length of an extent in bytes.
    pub(super) extent: u64,
    /// First byte of the first extent of this physical volume.
    pub(super) start: u64,
    /// How many extents this physical volume has.
    pub(super) count: u64,
    pub(super) volumes: Vec<Logical<'t>>,
}

/// A logical volume.
#[derive(Debug)]
pub(super) struct Logical<'t> {
    pub(super) name: &'t str,
    /// Gapless from its start.
    pub(super) segments: Vec<Segment<'t>>,
    /// Why its segments alone do not tell what it holds.
    pub(super) opaque: Option<String>,
}

/// A run of a logical volume.
#[derive(Debug)]
pub(super) struct Segment<'t> {
    start: u64,
    /// Length in extents.
    pub(super) count: u64,
    pub(super) kind: &'t str,
    /// How many extents each area has.
    pub(super) area_count: u64,
    /// The first extent of each area on this physical volume; `None` for areas elsewhere.
    pub(super) areas: Vec<Option<u64>>,
    /// Bytes that go to one area before the next has its turn; only with several areas.
    pub(super) stripe: u64,
}

impl<'t> Group<'t> {
    /// From the whole text, for the physical volume `uuid` (32 characters).
    pub(super) fn of(text: &Section<'t>, uuid: &str) -> Result<Group<'t>, Doubt> {
        let known =
            text.text("contents")? == "Text Format Volume Group" && text.number("version")? == 1;
        ensure(
            known,
            || "its volume group's description has an unknown version",
        )?;
        let mut sections = text.sections();
        let (Some((name, group)), None) = (sections.next(), sections.next()) else {
            return Err(Doubt::new(
                "its volume group's description is not of one group",
            ));
        };
        let states = [group.words("status")?, group.words("flags")?].concat();
        if let Some(state) = states.iter().find(|s| !GROUP_STATES.contains(s)) {
            let why = format!("its volume group {name} has the unknown state {state}");
            return Err(Doubt::new(why));
        }
        let unknown = group.sections().find(|(n, _)| !PARTS.contains(n));
        if let Some((part, _)) = unknown {
            let why = format!("its volume group {name} has an unknown part \"{part}\"");
            return Err(Doubt::new(why));
        }
        let physical = section(group, "physical_volumes")?;
        let (own, here) = own(physical, uuid, name)?;
        let bytes = |section: &Section<'_>, name| bytes_of(section, name);
        let found = Group {
            name,
            physical_volumes: physical.sections().count(),
            extent: bytes(group, "extent_size")?,
            start: bytes(here, "pe_start")?,
            count: here.number("pe_count")?,
            volumes: match group.get("logical_volumes") {
                Some(Value::Section(all)) => volumes(all, physical, own)?,
                _ => Vec::new(),
            },
        };
        ensure(found.extent > 0, || {
            format!("its volume group {name} has extents of no length")
        })?;
        Ok(found)
    }
}

fn section<'s, 't>(parent: &'s Section<'t>, name: &str) -> Result<&'s Section<'t>, Doubt> {
    match parent.get(name) {
        Some(Value::Section(section)) => Ok(section),
        _ => Err(Doubt::new(format!(
            "its volume group's description lacks \"{name}\""
        ))),
    }
}

/// A number of sectors, in bytes.
fn bytes_of(section: &Section<'_>, name: &str) -> Result<u64, Doubt> {
    section.number(name)?.checked_mul(SECTOR).ok_or_else(|| {
        Doubt::new(format!(
            "its volume group's description has a huge \"{name}\""
        ))
    })
}

/// The name and section of the physical volume `uuid`.
fn own<'s, 't>(
    physical: &'s Section<'t>,
    uuid: &str,
    group: &str,
) -> Result<(&'t str, &'s Section<'t>), Doubt> {
    let is_own = |(_, volume): &(&str, &Section<'t>)| {
        let id = volume.text("id").unwrap_or_default().replace('-', "");
        id == uuid
    };
    let mut found = physical.sections().filter(is_own);
    let (Some((name, volume)), None) = (found.next(), found.next()) else {
        let why = format!("the description of its volume group {group} does not list it once");
        return Err(Doubt::new(why));
    };
    let missing = [volume.words("status")?, volume.words("flags")?]
        .concat()
        .contains(&"MISSING");
    ensure(!missing, || {
        format!("its volume group {group} counts it as missing")
    })?;
    Ok((name, volume))
}

fn volumes<'t>(
    all: &Section<'t>,
    physical: &Section<'t>,
    own: &str,
) -> Result<Vec<Logical<'t>>, Doubt> {
    let mut volumes = Vec::new();
    // Who reads from whom: every name that a segment of another volume has in it, whatever for.
    let mut users: HashMap<&str, (&str, &str)> = HashMap::new();
    for (name, volume) in all.sections() {
        let segments = segments(name, volume, physical, own)?;
        let kind = segments.first().map_or("unknown", |s| s.kind);
        for (_, part) in volume.sections() {
            part.each_text("type", &mut |text| {
                if text != name {
                    users.entry(text).or_insert((name, kind));
                }
            });
        }
        let opaque = opaque(volume, &segments)?;
        volumes.push(Logical {
            name,
            segments,
            opaque,
        });
    }
    let physical: Vec<&str> = physical.sections().map(|(name, _)| name).collect();
    for volume in &mut volumes {
        // Names of physical and logical volumes that are the same are told apart by nothing here,
        // and a volume too many that is not looked into is no loss.
        let user = users.get(volume.name);
        if let Some((user, kind)) = user.filter(|_| !physical.contains(&volume.name)) {
            let why = format!("the volume {user} (of type {kind}) is built on it");
            volume.opaque = Some(why);
        } else if user.is_some() && volume.opaque.is_none() {
            volume.opaque = Some("its name is that of a physical volume".to_owned());
        }
    }
    Ok(volumes)
}

/// Why the segments of `volume` do not tell all, if they do not.
fn opaque(volume: &Section<'_>, segments: &[Segment<'_>]) -> Result<Option<String>, Doubt> {
    if let Some(segment) = segments.iter().find(|s| !s.is_striped()) {
        let why = format!(
            "it has a segment of type {}, which is not looked into",
            segment.kind
        );
        return Ok(Some(why));
    }
    let states = [volume.words("status")?, volume.words("flags")?].concat();
    if let Some(state) = states.iter().find(|s| !PLAIN_STATES.contains(s)) {
        return Ok(Some(format!("it has the state {state}")));
    }
    if !states.contains(&"VISIBLE") {
        return Ok(Some("it is one of LVM's own hidden volumes".to_owned()));
    }
    let elsewhere = segments.iter().any(|s| s.areas.contains(&None));
    Ok(elsewhere.then(|| "parts of it lie on other physical volumes".to_owned()))
}

/// The segments of a volume, which must leave no gap.
fn segments<'t>(
    name: &str,
    volume: &Section<'t>,
    physical: &Section<'t>,
    own: &str,
) -> Result<Vec<Segment<'t>>, Doubt> {
    let mut segments = Vec::new();
    for (key, section) in volume.sections() {
        ensure(key.starts_with("segment"), || {
            format!("its logical volume {name} has an unknown part \"{key}\"")
        })?;
        segments.push(segment(name, section, physical, own)?);
    }
    segments.sort_by_key(|s| s.start);
    let mut end = 0u64;
    for segment in &segments {
        let next = end.checked_add(segment.count);
        let (true, Some(next)) = (segment.start == end && segment.count > 0, next) else {
            let why = format!("the segments of its logical volume {name} do not add up");
            return Err(Doubt::new(why));
        };
        end = next;
    }
    let count = volume.number("segment_count")?;
    ensure(count == crate::base::to_u64(segments.len()), || {
        format!("its logical volume {name} does not have the {count} segments that it should")
    })?;
    Ok(segments)
}

impl Segment<'_> {
    pub(super) fn is_striped(&self) -> bool {
        is_striped(self.kind)
    }
}

fn is_striped(kind: &str) -> bool {
    ["striped", "linear"].contains(&kind)
}

fn segment<'t>(
    volume: &str,
    section: &Section<'t>,
    physical: &Section<'t>,
    own: &str,
) -> Result<Segment<'t>, Doubt> {
    let kind = section.text("type")?;
    let count = section.number("extent_count")?;
    let mut segment = Segment {
        start: section.number("start_extent")?,
        count,
        kind,
        area_count: count,
        areas: Vec::new(),
        stripe: 0,
    };
    if is_striped(kind) {
        segment.areas = areas(section.list("stripes")?, own)?;
        let stripes = section.number("stripe_count")?;
        let right = stripes > 0
            && stripes == crate::base::to_u64(segment.areas.len())
            && count.is_multiple_of(stripes);
        ensure(right, || {
            format!("the stripes of its logical volume {volume} do not add up")
        })?;
        segment.area_count = count / stripes;
        if stripes > 1 {
            segment.stripe = bytes_of(section, "stripe_size")?;
        }
    } else if kind == "mirror" {
        segment.areas = areas(section.list("mirrors")?, own)?;
    } else {
        // Areas of all other types are hidden logical volumes with segments of their own.
        let mut on_physical = false;
        section.each_text("type", &mut |text| {
            on_physical |= text == own && physical.get(text).is_some();
        });
        ensure(!on_physical, || {
            format!(
                "its logical volume {volume} has a segment of type {kind}, and which extents that takes is not known"
            )
        })?;
    }
    Ok(segment)
}

/// Pairs of a name and a first extent.
fn areas(list: &[Value<'_>], own: &str) -> Result<Vec<Option<u64>>, Doubt> {
    let pairs = list.chunks(2).map(|pair| match pair {
        [Value::Text(name), Value::Number(first)] => Ok((*name == own).then_some(*first)),
        _ => Err(Doubt::new(
            "a list of areas in its volume group's description cannot be read",
        )),
    });
    pairs.collect()
}
