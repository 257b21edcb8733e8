use std::collections::HashMap;

use super::*;
use crate::rationale::{rationale, rationale_in_prompt};

fn sample(category: Category, count: u64) -> Vec<TextQuestion> {
    (0..count).filter_map(|index| text_question(11, index, &[category])).collect()
}

/// Upper bound of the fraction of successes in `count` trials of probability `p` (3.5 standard
/// deviations).
fn bound(p: f64, count: usize) -> f64 {
    p + 3.5 * (p * (1.0 - p) / count as f64).sqrt()
}

#[test]
fn the_rationale_reaches_the_correct_answer_in_few_words() {
    for category in Category::ALL {
        let questions = sample(category, 100);
        assert_eq!(questions.len(), 100, "{category}");
        let mut words = 0;
        for found in &questions {
            assert_eq!(found.rationale.answer, found.question.answer);
            let prompt = found.perceived().question;
            assert_eq!(rationale_in_prompt(&prompt).as_ref(), Some(&found.rationale), "{prompt}");
            words += found.rationale.think().split_whitespace().count();
        }
        let limit = match category {
            Category::RelativeDistance | Category::RelativeDirection | Category::Counterfactual => {
                120
            }
            Category::ProgressEvaluation => 80,
            _ => 50,
        };
        assert!(words / questions.len() <= limit, "{category}: {}", words / questions.len());
    }
}

#[test]
fn letters_are_balanced() {
    for category in Category::ALL {
        let questions = sample(category, 600);
        for letter in ('A'..).take(category.options()) {
            let hits = questions.iter().filter(|found| found.question.answer == letter).count();
            let share = hits as f64 / questions.len() as f64;
            let chance = 1.0 / category.options() as f64;
            assert!(share < bound(chance, questions.len()), "{category} {letter}: {share}");
        }
    }
}

/// Accuracy of a blind classifier: it estimates on one half how often options with a feature are
/// correct, and picks the most likely option on the other half.
fn blind_accuracy(
    questions: &[TextQuestion],
    feature: impl Fn(&RoomQuestion, usize) -> String,
) -> f64 {
    let (learn, test) = questions.split_at(questions.len() / 2);
    let mut counts: HashMap<String, (f64, f64)> = HashMap::new();
    for TextQuestion { question, .. } in learn {
        for index in 0..question.options.len() {
            let count = counts.entry(feature(question, index)).or_default();
            count.0 += f64::from(u8::from(letter(index) == question.answer));
            count.1 += 1.0;
        }
    }
    let hits = test.iter().filter(|TextQuestion { question, .. }| {
        let promise = |index: usize| {
            let (right, all) = counts.get(&feature(question, index)).copied().unwrap_or((0.0, 0.0));
            (right + 1.0) / (all + question.options.len() as f64)
        };
        let guess = (0..question.options.len())
            .max_by(|&a, &b| promise(a).total_cmp(&promise(b)))
            .unwrap_or(0);
        letter(guess) == question.answer
    });
    hits.count() as f64 / test.len() as f64
}

#[test]
fn no_feature_of_a_question_predicts_its_answer() {
    for category in Category::ALL {
        let questions = sample(category, 1200);
        let chance = bound(1.0 / category.options() as f64, questions.len() / 2);
        let blind = |name: &str, feature: &dyn Fn(&RoomQuestion, usize) -> String| {
            let accuracy = blind_accuracy(&questions, feature);
            assert!(accuracy < chance, "{category} by {name}: {accuracy} of {chance}");
        };
        blind("letter", &|_, index| letter(index).to_string());
        blind("option", &|question, index| question.options[index].clone());
        blind("option's last word", &|question, index| {
            question.options[index].split(' ').next_back().unwrap_or("").to_owned()
        });
        blind("question", &|question, index| {
            format!("{} {}", question.stem, question.options[index])
        });
        blind("question's last word", &|question, index| {
            let word = question.stem.split(' ').next_back().unwrap_or("");
            format!("{word} {}", question.options[index])
        });
        blind("position in the question", &|question, index| {
            let option = &question.options[index];
            let words: Vec<_> = option.split(", ").map(|word| question.stem.find(word)).collect();
            let mut order: Vec<_> = (0..words.len()).collect();
            order.sort_by_key(|&word| words[word]);
            let among = question.options.iter().filter(|other| {
                question.stem.find(other.as_str()) < question.stem.find(option.as_str())
            });
            format!("{order:?} {}", among.count())
        });
        blind("length", &|question, index| question.options[index].len().to_string());
    }
}

#[test]
fn the_captions_of_another_room_give_chance_accuracy() {
    for category in Category::ALL {
        let questions = sample(category, 800);
        let (mut answered, mut hits) = (0, 0);
        for (i, found) in questions.iter().enumerate() {
            let other = &questions[(i + 1) % questions.len()];
            if let Some(found_there) = rationale(&found.question.text, &other.captions) {
                answered += 1;
                hits += usize::from(found_there.answer == found.question.answer);
            }
        }
        if answered > 0 {
            let share = f64::from(hits as u32) / f64::from(answered as u32);
            let chance = bound(1.0 / category.options() as f64, answered);
            assert!(share < chance, "{category}: {share} of {answered}");
        }
    }
}

#[test]
fn a_room_has_the_requested_questions() {
    let mut missing = 0;
    for index in 0..20 {
        let room = room(5, index, &Category::ALL, 1);
        missing += Category::ALL.len() - room.questions.len();
        for question in &room.questions {
            let frames = keyframes_by_pose(&room.scene);
            let found = rationale(&question.text, &captions_at(&room.scene, &frames));
            assert_eq!(found.map(|found| found.answer), Some(question.answer));
        }
    }
    assert_eq!(missing, 0);
}

#[test]
fn answers_about_whole_rooms_are_balanced_in_content_and_letter() {
    let categories = [
        Category::LandmarkPosition,
        Category::ActionGeneration,
        Category::ProgressEvaluation,
        Category::Counterfactual,
    ];
    let rooms: Vec<_> = (0..150).map(|index| room(7, index, &categories, 2)).collect();
    for category in &categories[..3] {
        let mut counts: HashMap<String, usize> = HashMap::new();
        let questions = rooms.iter().flat_map(|room| &room.questions);
        let questions: Vec<_> = questions.filter(|it| it.category == *category).collect();
        assert!(questions.len() >= 280, "{category}: {}", questions.len());
        for question in &questions {
            let right = usize::from(question.answer as u8 - b'A');
            let content = match category {
                // The step's position in the route.
                Category::ProgressEvaluation => {
                    let before = |option: &String| question.stem.find(option.as_str());
                    let right = before(&question.options[right]);
                    let count = question.options.iter().filter(|it| before(it) < right).count();
                    format!("step {count}")
                }
                _ => question.options[right].clone(),
            };
            *counts.entry(content).or_default() += 1;
            *counts.entry(question.answer.to_string()).or_default() += 1;
        }
        let classes = answer_classes(*category);
        assert_eq!(counts.len(), classes + 4, "{category}: {counts:?}");
        for (content, count) in counts {
            let share = count as f64 / questions.len() as f64;
            let chance = 1.0 / if content.len() == 1 { 4.0 } else { classes as f64 };
            assert!(share < bound(chance, questions.len()), "{category} {content}: {share}");
        }
    }
}

#[test]
fn two_questions_of_a_category_differ() {
    for index in 0..10 {
        let room = room(6, index, &[Category::LandmarkPosition], 2);
        assert_eq!(room.questions.len(), 2);
        assert_ne!(room.questions[0].stem, room.questions[1].stem);
    }
}

#[test]
fn final_positions_are_both_inside_and_outside_the_view() {
    let questions = sample(Category::LandmarkPosition, 200);
    // A rotation after the last sighting.
    let tracked = questions.iter().filter(|found| found.rationale.think().contains(", rotate "));
    assert!((100..=190).contains(&tracked.count()));
}
