//! Putting what belongs together in order without moving anything else.

/// Fills the places of each group in the order of `rank`. What is in no group stays where it is.
pub(crate) fn fill<T: Clone, R: Ord>(
    things: &mut [T],
    groups: impl IntoIterator<Item = Vec<usize>>,
    rank: impl Fn(&T) -> R,
) {
    for places in groups.into_iter().filter(|places| places.len() > 1) {
        let mut ranked: Vec<T> = places
            .iter()
            .filter_map(|&place| things.get(place))
            .cloned()
            .collect();
        ranked.sort_by_key(&rank);
        for (place, thing) in places.into_iter().zip(ranked) {
            if let Some(slot) = things.get_mut(place) {
                *slot = thing;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::fill;

    #[test]
    fn a_groups_places_stay_its_own() {
        let mut things = [9, 3, 7, 1, 5, 2];
        fill(&mut things, [vec![0, 3, 4], vec![1, 5], vec![2]], |thing| {
            *thing
        });
        assert_eq!(things, [1, 2, 7, 5, 9, 3]);
    }
}
