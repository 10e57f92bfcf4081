"""Letters: words from templates, made into mail, and handed to a mail server or to a folder."""
