-- Whether steps are made.
return 1
