//! Who subscribes to whom: everybody has as many subscribers as everybody else, chosen as if by lot.
//!
//! Pure. Users stand on a circle in a shuffled order, and a user's subscribers are those at fixed, random distances: so the graph
//! costs 8 bytes a user whatever its density, and both directions are read off it.

use crate::base::random::Random;
use std::collections::BTreeSet;

/// The subscriptions of `users` users.
pub struct Graph {
    /// The user at each place of the circle, and each user's place.
    order: Vec<u32>,
    place: Vec<u32>,
    distances: Vec<u32>,
}

impl Graph {
    /// Everybody has `subscribers` subscribers and as many publishers. The same arguments give the same graph.
    ///
    /// # Panics
    /// When there are not more users than subscribers each.
    pub fn new(users: u32, subscribers: u32) -> Graph {
        assert!(subscribers < users, "{subscribers} subscribers each need more than {users} users");
        let mut random = Random::new(u64::from(users) << 32 | u64::from(subscribers));
        let mut order: Vec<u32> = (0..users).collect();
        random.shuffle(&mut order);
        let mut place = vec![0; users as usize];
        order.iter().enumerate().for_each(|(at, &user)| place[user as usize] = at as u32);
        let mut distances = BTreeSet::new();
        // Half of them are taken by leaving out, so that dense graphs are found as fast as sparse ones.
        let sparse = subscribers <= users / 2;
        let drawn = if sparse { subscribers } else { users - 1 - subscribers };
        while distances.len() < drawn as usize {
            distances.insert(1 + random.below(u64::from(users) - 1) as u32);
        }
        let distances = (1..users).filter(|distance| distances.contains(distance) == sparse);
        Graph { order, place, distances: distances.collect() }
    }

    /// The same with mutual subscriptions: whoever subscribes to a user is subscribed to by that user.
    ///
    /// # Panics
    /// When there are not more users than subscribers each, or an odd number of both.
    pub fn mutual(users: u32, subscribers: u32) -> Graph {
        assert!(subscribers < users && (subscribers.is_multiple_of(2) || users.is_multiple_of(2)), "pairs can't be made");
        let mut graph = Graph::new(users, 0);
        let mut random = Random::new(u64::from(users) << 32 | u64::from(subscribers));
        let mut half = BTreeSet::new();
        while half.len() < subscribers as usize / 2 {
            half.insert(1 + random.below(u64::from(users.div_ceil(2)) - 1) as u32);
        }
        graph.distances = half.iter().flat_map(|&distance| [distance, users - distance]).collect();
        if !subscribers.is_multiple_of(2) {
            graph.distances.push(users / 2);
        }
        graph
    }

    pub fn users(&self) -> u32 {
        self.order.len() as u32
    }

    /// Subscribers of each user.
    pub fn degree(&self) -> u32 {
        self.distances.len() as u32
    }

    /// One subscriber of a user, by number below `degree`.
    pub fn subscriber(&self, user: u32, number: u32) -> u32 {
        self.at(user, self.distances[number as usize])
    }

    /// One of those a user subscribes to, by number below `degree`.
    pub fn publisher(&self, user: u32, number: u32) -> u32 {
        self.at(user, self.users() - self.distances[number as usize])
    }

    /// Who stands so far on from a user.
    fn at(&self, user: u32, distance: u32) -> u32 {
        let at = u64::from(self.place[user as usize]) + u64::from(distance);
        self.order[(at % u64::from(self.users())) as usize]
    }

    pub fn subscribers(&self, user: u32) -> impl Iterator<Item = u32> {
        (0..self.degree()).map(move |number| self.subscriber(user, number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_has_and_is_as_many_subscribers_and_never_twice() {
        for (users, degree) in [(2, 1), (50, 20), (50, 49), (1000, 600)] {
            let graph = Graph::new(users, degree);
            let mut pairs = BTreeSet::new();
            for user in 0..users {
                let subscribers: BTreeSet<u32> = graph.subscribers(user).collect();
                assert!(subscribers.len() == degree as usize && !subscribers.contains(&user));
                pairs.extend(subscribers.into_iter().map(|subscriber| (user, subscriber)));
            }
            let publishers = |user| (0..degree).map(move |number| (user, number));
            let inverse = (0..users).flat_map(publishers).map(|(user, number)| (graph.publisher(user, number), user));
            assert_eq!(pairs, inverse.collect());
        }
    }

    #[test]
    fn mutual_subscriptions_go_both_ways() {
        for (users, degree) in [(10, 2), (10, 9), (51, 20), (1000, 50)] {
            let graph = Graph::mutual(users, degree);
            let subscribers = |user| graph.subscribers(user).collect::<BTreeSet<u32>>();
            for user in 0..users {
                let of_user = subscribers(user);
                assert!(of_user.len() == degree as usize && !of_user.contains(&user));
                assert!(of_user.into_iter().all(|subscriber| subscribers(subscriber).contains(&user)));
            }
        }
    }

    #[test]
    fn the_same_arguments_give_the_same_graph() {
        let subscribers = |graph: &Graph| (0..100).flat_map(|user| graph.subscribers(user).collect::<Vec<_>>()).collect::<Vec<_>>();
        assert_eq!(subscribers(&Graph::new(100, 7)), subscribers(&Graph::new(100, 7)));
        assert_ne!(subscribers(&Graph::new(100, 7)), subscribers(&Graph::new(100, 8)));
    }
}
