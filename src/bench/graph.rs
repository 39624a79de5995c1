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
        let (order, place) = circle(users, &mut random);
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

    /// Everybody has as many `contacts`, who are both his subscribers and his publishers. The same arguments give the same graph.
    ///
    /// # Panics
    /// When there are not more users than contacts each, or both numbers are odd: then there is no such graph.
    pub fn mutual(users: u32, contacts: u32) -> Graph {
        assert!(
            users.is_multiple_of(2) || contacts.is_multiple_of(2),
            "an odd number of users can't have {contacts} contacts each"
        );
        assert!(contacts < users, "{contacts} contacts each need more than {users} users");
        let mut random = Random::new(u64::from(users) << 32 | u64::from(contacts));
        let (order, place) = circle(users, &mut random);
        // Distances below the half of the circle go both ways; who stands just opposite is the same either way.
        let mut near: Vec<u32> = (1..users.div_ceil(2)).collect();
        random.shuffle(&mut near);
        near.truncate(contacts as usize / 2);
        let mut distances: Vec<u32> = near.iter().flat_map(|&distance| [distance, users - distance]).collect();
        if !contacts.is_multiple_of(2) {
            distances.push(users / 2);
        }
        distances.sort_unstable();
        Graph { order, place, distances }
    }

    pub fn users(&self) -> u32 {
        self.order.len() as u32
    }

    /// Subscribers of each user.
    pub fn degree(&self) -> u32 {
        self.distances.len() as u32
    }

    /// How many pairs of a subscriber and a publisher there are.
    pub fn pairs(&self) -> u64 {
        u64::from(self.users()) * u64::from(self.degree())
    }

    /// A subscriber and its publisher, by number below `pairs`: those of all users by turns.
    pub fn subscription(&self, number: u64) -> (u32, u32) {
        let (user, number) = self.by_turns(number);
        (user, self.publisher(user, number))
    }

    /// A publisher and its subscriber, by number below `pairs`: the same pairs in another order.
    pub fn approval(&self, number: u64) -> (u32, u32) {
        let (user, number) = self.by_turns(number);
        (user, self.subscriber(user, number))
    }

    fn by_turns(&self, number: u64) -> (u32, u32) {
        let users = u64::from(self.users());
        ((number % users) as u32, (number / users) as u32)
    }

    /// One subscriber of a user, by number below `degree`.
    pub fn subscriber(&self, user: u32, number: u32) -> u32 {
        self.at(user, self.distances[number as usize])
    }

    /// One of those a user subscribes to, by number below `degree`.
    pub fn publisher(&self, user: u32, number: u32) -> u32 {
        self.at(user, self.users() - self.distances[number as usize])
    }

    /// Which number `publisher` has among those `user` subscribes to.
    pub fn number(&self, user: u32, publisher: u32) -> Option<u32> {
        let (from, to) = (self.place[publisher as usize], self.place[user as usize]);
        let distance = if to >= from { to - from } else { to + self.users() - from };
        self.distances.binary_search(&distance).ok().map(|number| number as u32)
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

/// Users in a shuffled order, and the place of each.
fn circle(users: u32, random: &mut Random) -> (Vec<u32>, Vec<u32>) {
    let mut order: Vec<u32> = (0..users).collect();
    random.shuffle(&mut order);
    let mut place = vec![0; users as usize];
    order.iter().enumerate().for_each(|(at, &user)| place[user as usize] = at as u32);
    (order, place)
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
            assert_eq!(graph.pairs(), pairs.len() as u64);
            let inverse = (0..graph.pairs()).map(|number| graph.subscription(number)).map(|(user, publisher)| (publisher, user));
            assert_eq!(pairs, inverse.collect());
            assert_eq!(pairs, (0..graph.pairs()).map(|number| graph.approval(number)).collect());
        }
    }

    #[test]
    fn contacts_are_mutual_and_everybody_has_as_many() {
        for (users, contacts) in [(2, 1), (10, 9), (11, 10), (51, 20), (50, 21)] {
            let graph = Graph::mutual(users, contacts);
            for user in 0..users {
                let subscribers: BTreeSet<u32> = graph.subscribers(user).collect();
                let publishers: BTreeSet<u32> = (0..contacts).map(|number| graph.publisher(user, number)).collect();
                assert_eq!((subscribers.len(), &subscribers), (contacts as usize, &publishers));
                assert!(!subscribers.contains(&user));
            }
        }
    }

    #[test]
    fn a_publisher_has_the_number_by_which_it_is_found() {
        let graph = Graph::new(50, 20);
        for user in 0..50 {
            let publishers: Vec<u32> = (0..20).map(|number| graph.publisher(user, number)).collect();
            for other in 0..50 {
                let number = publishers.iter().position(|&publisher| publisher == other).map(|number| number as u32);
                assert_eq!(graph.number(user, other), number);
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
