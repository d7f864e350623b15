print("verneuilctl")
