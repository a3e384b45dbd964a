"""What is asked about which clips, when a reply is right, and how sure a figure of many replies is."""
