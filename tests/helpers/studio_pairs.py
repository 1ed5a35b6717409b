"""Pairs of answers at a help desk, the better one first, written for the studio's demo and its tests."""

GUIDES = (
    "# Which answer would you send?\n\nChoose the answer that helps the customer more.\n",
    """# Which answer would you send?

Read **both answers to the end**. Choose the one that helps this customer more, in this order:

1. **True.** It promises nothing we do not do.
2. **Answers the question** that was asked, with steps one can follow.
3. **Kind**, and no longer than it needs to be.

## Ties

Choose *tie* when you would honestly toss a coin. Two answers that differ in tone alone are no tie: the kinder one wins.

## Both bad

When you would send neither. An answer that invents a price or a rule is bad, however nice it sounds.

> New in this version: an answer that only asks back loses to one that helps first and asks then.
""",
)

PAIRS = (
    (
        "My parcel says *delivered* but nothing is here. What can I do?",
        "I am sorry, that is annoying. Three things usually find it:\n\n1. Look at the **photo of the delivery** under "
        "*Orders → Track*. It often shows a neighbour's door.\n2. Ask the neighbours and the letting office.\n3. If it "
        "has not turned up by tomorrow evening, press **Report missing** on the order. We then send it again or refund "
        "you, whichever you like.\n\nYou need not pay anything for that.",
        "Parcels marked as delivered have been delivered. Please check with your local post office, which is responsible "
        "for everything after our warehouse. We cannot help with parcels that were delivered.",
    ),
    (
        "How do I cancel my subscription without losing this month?",
        "Go to **Account → Plan → Cancel**. Your plan then ends on the last day that you have paid for, so you keep "
        "this month in full, and nothing more is charged. You will get an e-mail that confirms it.",
        "You can cancel at any time. Cancelling is done in the settings of your account, where there are many other "
        "useful settings as well. Have you thought about our yearly plan? It is cheaper.",
    ),
    (
        "Can I change the name on my booking? I got married.",
        "Congratulations! Yes, a change of surname after a wedding is free. Send us the booking number and a photo of "
        "the certificate under *Help → Documents*; it takes about a day. Your tickets stay valid meanwhile.",
        "Names on bookings can be changed for a fee of 25 EUR for each person, or 40 EUR on the day of travel. Names can "
        "also be changed by booking again.",
    ),
    (
        "The app shows *error 31* when I log in.",
        "Error 31 means that the clock of your phone is off by more than five minutes.\n\n- **Android:** Settings → "
        "System → Date and time → *Set automatically*\n- **iPhone:** Settings → General → Date & Time → *Set "
        "Automatically*\n\nThen open the app again. If it still says 31, tell me the model of your phone.",
        "Please delete the app and install it again. If this does not help, please delete it again and restart your "
        "phone before you install it. Errors can have many causes.",
    ),
    (
        "Do you ship to Iceland, and what does it cost?",
        "Yes. Parcels up to 5 kg cost **14.90 EUR** and take 6 to 9 working days. Customs in Iceland may ask for 24 % VAT "
        "on arrival, which goes to them and not to us. The basket shows the exact price once you choose the country.",
        "We ship worldwide! Shipping costs depend on many factors such as weight, size and destination. Our logistics "
        "partners are always happy to find the best solution for you.",
    ),
    (
        "I was charged twice for the same order!",
        "That looks worse than it is: one of the two is a **reservation** that your bank drops by itself, usually within "
        "three working days. I can see only one payment here, over 42.10 EUR. If both are still there on Thursday, send "
        "me a screenshot and I will have our bank look at it.",
        "We never charge twice. You have probably ordered twice by mistake. Please look at your orders first.",
    ),
    (
        "Is the blue jacket waterproof enough for a week of hiking in Norway?",
        "It keeps rain out for two to three hours (a water column of 8,000 mm), which is fine for showers. For whole "
        "days of rain I would take the **Fjell** shell instead: 20,000 mm and taped seams. Both pack small.",
        "The blue jacket is one of our most popular jackets. Customers love its colour and fit. It is made of high-quality "
        "material that is water-repellent, breathable and stylish.",
    ),
    (
        "How can I download all my invoices from last year at once?",
        "Under **Account → Invoices**, choose the year at the top, then *Select all* and *Download*. You get one ZIP file "
        "with a PDF for each order and a table:\n\n| file | holds |\n|---|---|\n| `2026-03-1182.pdf` | an invoice |\n| "
        "`index.csv` | date, order, amount, tax |",
        "Invoices are sent by e-mail with every order. Please search your mailbox for the word *invoice*; you can then "
        "save each of them to your computer and print it if needed.",
    ),
)
